/* One keyframe to one JPEG with libavcodec, swscale and libjpeg-turbo, each used as its documentation shows. The
 * decoder is opened once and flushed between pictures: opening one for each would add 0.25 ms that nobody has to spend.
 */
#include <errno.h>
#include <libavcodec/avcodec.h>
#include <libswscale/swscale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* After stdio.h, which it needs and does not include. */
#include <jpeglib.h>

#include "floor.h"

enum {
    JPEG_QUALITY = 85,
    KEYFRAMES_MAX = 4096,
    FLV_HEADER_BYTES = 9,
    FLV_TAG_HEADER_BYTES = 11,
    /* FrameType and codec, packet type, composition offset (FLV 10.1, E.4.3.1). */
    FLV_AVC_HEADER_BYTES = 5,
};

struct keyframe {
    const uint8_t *data;
    int size;
};

static struct keyframe keyframes[KEYFRAMES_MAX];
static unsigned keyframe_count;
static AVCodecContext *decoder;

static uint8_t *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) fail("open %s: %s", path, strerror(errno));
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    /* libavcodec reads a little past the end of a packet; the last one must have something behind it. */
    uint8_t *bytes = calloc(1, *size + AV_INPUT_BUFFER_PADDING_SIZE);
    if (bytes == NULL || fread(bytes, 1, *size, file) != *size) fail("read %s", path);
    fclose(file);
    return bytes;
}

static void open_decoder(const uint8_t *config, int size) {
    decoder = avcodec_alloc_context3(avcodec_find_decoder(AV_CODEC_ID_H264));
    if (decoder == NULL) fail("libavcodec has no H.264 decoder");
    decoder->extradata = av_mallocz((size_t)size + AV_INPUT_BUFFER_PADDING_SIZE);
    memcpy(decoder->extradata, config, (size_t)size);
    decoder->extradata_size = size;
    decoder->thread_count = 1;
    if (avcodec_open2(decoder, NULL, NULL) != 0) fail("open the decoder");
}

void picture_load(const char *path) {
    size_t size;
    const uint8_t *bytes = read_file(path, &size);
    if (size < FLV_HEADER_BYTES || memcmp(bytes, "FLV", 3) != 0) fail("%s is not an FLV file", path);
    for (size_t at = FLV_HEADER_BYTES + 4; at + FLV_TAG_HEADER_BYTES <= size;) {
        const uint8_t *tag = bytes + at;
        size_t length = (size_t)tag[1] << 16 | (size_t)tag[2] << 8 | tag[3];
        const uint8_t *body = tag + FLV_TAG_HEADER_BYTES;
        at += FLV_TAG_HEADER_BYTES + length + 4;
        if (at > size) break;
        if (tag[0] != 9 || length <= FLV_AVC_HEADER_BYTES || body[0] != 0x17) continue;
        const uint8_t *payload = body + FLV_AVC_HEADER_BYTES;
        int payload_bytes = (int)(length - FLV_AVC_HEADER_BYTES);
        if (body[1] == 0 && decoder == NULL) {
            open_decoder(payload, payload_bytes);
        } else if (body[1] == 1 && keyframe_count < KEYFRAMES_MAX) {
            keyframes[keyframe_count++] = (struct keyframe){payload, payload_bytes};
        }
    }
    if (decoder == NULL || keyframe_count == 0) fail("%s holds no H.264 keyframe", path);
}

static void decode(const struct keyframe *keyframe, AVPacket *packet, AVFrame *frame) {
    packet->data = (uint8_t *)keyframe->data;
    packet->size = keyframe->size;
    int result = avcodec_send_packet(decoder, packet);
    if (result == 0) result = avcodec_send_packet(decoder, NULL);
    if (result == 0) result = avcodec_receive_frame(decoder, frame);
    if (result != 0 || frame->format != AV_PIX_FMT_YUV420P) fail("decode a keyframe to 4:2:0: error %d", result);
    avcodec_flush_buffers(decoder);
}

static double mean_luma(const AVFrame *frame) {
    double sum = 0;
    for (int y = 0; y < frame->height; y++) {
        for (int x = 0; x < frame->width; x++) sum += frame->data[0][y * frame->linesize[0] + x];
    }
    return sum / ((double)frame->width * frame->height);
}

/* Full range from limited range, and `divisor` times smaller. swscale leaves the conversion out without a word when it is
 * asked in another way, which would make the floor too low, so the first picture is checked. */
static void convert(struct SwsContext **scaler, const AVFrame *limited, AVFrame *full, int divisor) {
    int first = *scaler == NULL;
    if (first) {
        full->width = limited->width / divisor;
        full->height = limited->height / divisor;
        *scaler = sws_getContext(limited->width, limited->height, AV_PIX_FMT_YUV420P, full->width, full->height,
                                 AV_PIX_FMT_YUVJ420P, SWS_BICUBIC, NULL, NULL, NULL);
        full->format = AV_PIX_FMT_YUVJ420P;
        if (*scaler == NULL || av_frame_get_buffer(full, 0) != 0) fail("prepare the conversion");
    }
    sws_scale(*scaler, (const uint8_t *const *)limited->data, limited->linesize, 0, limited->height, full->data,
              full->linesize);
    if (first && fabs(mean_luma(full) - (mean_luma(limited) - 16) * 255 / 219) > 1) {
        fail("swscale left the range as it was");
    }
}

/* The rows of one plane that make up the next 16 lines; the last row stands in for those below the picture. */
static void fill_rows(JSAMPROW *rows, int count, const AVFrame *frame, int plane, int from, int height) {
    for (int i = 0; i < count; i++) {
        int y = from + i < height ? from + i : height - 1;
        rows[i] = frame->data[plane] + (ptrdiff_t)y * frame->linesize[plane];
    }
}

static unsigned long encode(const AVFrame *frame) {
    struct jpeg_error_mgr errors;
    struct jpeg_compress_struct jpeg = {.err = jpeg_std_error(&errors)};
    unsigned char *bytes = NULL;
    unsigned long size = 0;
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &bytes, &size);
    jpeg.image_width = (JDIMENSION)frame->width;
    jpeg.image_height = (JDIMENSION)frame->height;
    jpeg.input_components = 3;
    jpeg.in_color_space = JCS_YCbCr;
    jpeg_set_defaults(&jpeg);
    jpeg_set_quality(&jpeg, JPEG_QUALITY, TRUE);
    jpeg.raw_data_in = TRUE;
    jpeg_start_compress(&jpeg, TRUE);
    JSAMPROW luma[16], blue[8], red[8];
    JSAMPARRAY planes[3] = {luma, blue, red};
    while (jpeg.next_scanline < jpeg.image_height) {
        int y = (int)jpeg.next_scanline, chroma_height = (frame->height + 1) / 2;
        fill_rows(luma, 16, frame, 0, y, frame->height);
        fill_rows(blue, 8, frame, 1, y / 2, chroma_height);
        fill_rows(red, 8, frame, 2, y / 2, chroma_height);
        jpeg_write_raw_data(&jpeg, planes, 16);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    free(bytes);
    return size;
}

static uint64_t now_ns(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* What is kept from one picture to the next. */
struct maker {
    AVPacket *packet;
    AVFrame *limited, *full;
    struct SwsContext *scaler;
    int divisor;
};

static struct maker maker_open(int divisor) {
    struct maker maker = {av_packet_alloc(), av_frame_alloc(), av_frame_alloc(), NULL, divisor};
    if (maker.packet == NULL || maker.limited == NULL || maker.full == NULL) fail("out of memory");
    return maker;
}

struct cost {
    uint64_t decode_ns, convert_ns, encode_ns;
    unsigned long bytes;
};

static struct cost make_picture(struct maker *maker, const struct keyframe *keyframe) {
    uint64_t begun = now_ns(CLOCK_THREAD_CPUTIME_ID);
    decode(keyframe, maker->packet, maker->limited);
    uint64_t decoded = now_ns(CLOCK_THREAD_CPUTIME_ID);
    convert(&maker->scaler, maker->limited, maker->full, maker->divisor);
    uint64_t converted = now_ns(CLOCK_THREAD_CPUTIME_ID);
    unsigned long bytes = encode(maker->full);
    uint64_t encoded = now_ns(CLOCK_THREAD_CPUTIME_ID);
    av_frame_unref(maker->limited);
    return (struct cost){decoded - begun, converted - decoded, encoded - converted, bytes};
}

static void print(struct cost cost) {
    printf("{\"decode_us\":%llu,\"convert_us\":%llu,\"encode_us\":%llu,\"bytes\":%lu}\n",
           (unsigned long long)cost.decode_ns / 1000, (unsigned long long)cost.convert_ns / 1000,
           (unsigned long long)cost.encode_ns / 1000, cost.bytes);
    fflush(stdout);
}

void picture_measure(unsigned rounds, int divisor) {
    struct maker maker = maker_open(divisor);
    for (unsigned round = 0; round <= rounds; round++) {
        for (unsigned i = 0; i < keyframe_count; i++) {
            struct cost cost = make_picture(&maker, &keyframes[i]);
            if (round > 0) print(cost);
        }
    }
}

void picture_run(unsigned interval_ms, unsigned per_interval) {
    struct maker maker = maker_open(1);
    uint64_t start = now_ns(CLOCK_MONOTONIC);
    for (uint64_t taken = 0;; taken++) {
        uint64_t due = start + taken * interval_ms * 1000000 / per_interval;
        struct timespec until = {.tv_sec = (time_t)(due / 1000000000), .tv_nsec = (long)(due % 1000000000)};
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {
        }
        print(make_picture(&maker, &keyframes[taken % keyframe_count]));
    }
}
