#include "shim.h"

#include <stdio.h>
#include <string.h>

#include <libavcodec/avcodec.h>
#include <libavutil/frame.h>
#include <libavutil/log.h>
#include <libavutil/pixdesc.h>

struct fh_decoder {
    AVCodecContext *context;
    AVPacket *packet;
    AVFrame *frame;
    int background;
    /* A failed allocation of a picture; the decoder reports some of these as a corrupt slice. */
    int no_memory;
};

const char *fh_library(void) {
    static char text[64];
    unsigned version = avcodec_version();
    snprintf(text, sizeof text, "libavcodec %u.%u.%u", version >> 16, (version >> 8) & 0xff, version & 0xff);
    return text;
}

void fh_quiet(void) { av_log_set_level(AV_LOG_QUIET); }

/* The decode table. Another codec is one line here, one in decode.rs, and the tests that show what its decoder reports
 * of damage. */
static const AVCodec *find_decoder(int codec) {
    switch (codec) {
    case FH_H264: return avcodec_find_decoder_by_name("h264");
    default: return NULL;
    }
}

int fh_has_decoder(int codec) { return find_decoder(codec) != NULL; }

static int get_buffer(AVCodecContext *context, AVFrame *frame, int flags) {
    struct fh_decoder *decoder = context->opaque;
    int result = avcodec_default_get_buffer2(context, frame, flags);
    if (result == AVERROR(ENOMEM)) decoder->no_memory = 1;
    if (result >= 0 && decoder->background >= 0)
        for (int i = 0; i < AV_NUM_DATA_POINTERS && frame->buf[i]; i++)
            memset(frame->buf[i]->data, decoder->background, frame->buf[i]->size);
    return result;
}

int fh_open(int codec, const uint8_t *config, size_t config_bytes, int64_t pixels_max, struct fh_decoder **out) {
    const AVCodec *library = find_decoder(codec);
    if (!library) return FH_UNSUPPORTED;
    struct fh_decoder *decoder = av_mallocz(sizeof *decoder);
    if (!decoder) return FH_NO_MEMORY;
    decoder->context = avcodec_alloc_context3(library);
    decoder->packet = av_packet_alloc();
    decoder->frame = av_frame_alloc();
    if (!decoder->context || !decoder->packet || !decoder->frame) goto no_memory;

    AVCodecContext *context = decoder->context;
    context->opaque = decoder;
    context->get_buffer2 = get_buffer;
    /* The jail allows no threads. */
    context->thread_count = 1;
    context->max_pixels = pixels_max;
    /* Crop to the sample: without it, left cropping is rounded to the alignment of SIMD loads. */
    context->flags |= AV_CODEC_FLAG_UNALIGNED;
    context->err_recognition |= AV_EF_EXPLODE | AV_EF_CRCCHECK | AV_EF_BITSTREAM;
    if (config_bytes > 0) {
        context->extradata = av_mallocz(config_bytes + AV_INPUT_BUFFER_PADDING_SIZE);
        if (!context->extradata) goto no_memory;
        memcpy(context->extradata, config, config_bytes);
        context->extradata_size = (int)config_bytes;
    }
    int result = avcodec_open2(context, library, NULL);
    if (result == AVERROR(ENOMEM)) goto no_memory;
    if (result < 0) {
        fh_close(decoder);
        return FH_CORRUPT;
    }
    *out = decoder;
    return FH_OK;

no_memory:
    fh_close(decoder);
    return FH_NO_MEMORY;
}

void fh_close(struct fh_decoder *decoder) {
    if (!decoder) return;
    av_frame_free(&decoder->frame);
    av_packet_free(&decoder->packet);
    avcodec_free_context(&decoder->context);
    av_free(decoder);
}

/* The unit, and with it the config once more: parameter sets that an earlier unit brought along must not outlive it. */
static int fill_packet(struct fh_decoder *decoder, const uint8_t *unit, size_t unit_bytes) {
    AVPacket *packet = decoder->packet;
    if (av_new_packet(packet, (int)unit_bytes) < 0) return FH_NO_MEMORY;
    memcpy(packet->data, unit, unit_bytes);
    packet->flags |= AV_PKT_FLAG_KEY;
    size_t config_bytes = (size_t)decoder->context->extradata_size;
    if (config_bytes > 0) {
        uint8_t *config = av_packet_new_side_data(packet, AV_PKT_DATA_NEW_EXTRADATA, config_bytes);
        if (!config) return FH_NO_MEMORY;
        memcpy(config, decoder->context->extradata, config_bytes);
    }
    return FH_OK;
}

static int decode_one(struct fh_decoder *decoder) {
    int result = avcodec_send_packet(decoder->context, decoder->packet);
    if (result >= 0) result = avcodec_receive_frame(decoder->context, decoder->frame);
    /* A stream with reordered pictures keeps this one back until it is told that no other comes. */
    if (result == AVERROR(EAGAIN)) {
        result = avcodec_send_packet(decoder->context, NULL);
        if (result >= 0) result = avcodec_receive_frame(decoder->context, decoder->frame);
    }
    if (result >= 0) return FH_OK;
    if (decoder->no_memory || result == AVERROR(ENOMEM)) return FH_NO_MEMORY;
    if (result == AVERROR_EOF) return FH_NO_PICTURE;
    return result == AVERROR_PATCHWELCOME ? FH_UNSUPPORTED : FH_CORRUPT;
}

static int describe(AVFrame *frame, struct fh_picture *out) {
    const AVPixFmtDescriptor *format = av_pix_fmt_desc_get(frame->format);
    const uint64_t refused =
        AV_PIX_FMT_FLAG_RGB | AV_PIX_FMT_FLAG_ALPHA | AV_PIX_FMT_FLAG_PAL | AV_PIX_FMT_FLAG_HWACCEL | AV_PIX_FMT_FLAG_BE |
        AV_PIX_FMT_FLAG_BITSTREAM;
    if (!format || (format->flags & refused)) return FH_UNSUPPORTED;
    if (format->nb_components != 3) return FH_UNSUPPORTED;
    int bytes_per_sample = format->comp[0].depth > 8 ? 2 : 1;
    for (int i = 0; i < 3; i++) {
        const AVComponentDescriptor *component = &format->comp[i];
        if (component->plane != i || component->depth != format->comp[0].depth || component->shift != 0 ||
            component->offset != 0 || component->step != bytes_per_sample)
            return FH_UNSUPPORTED;
        AVBufferRef *buffer = av_frame_get_plane_buffer(frame, i);
        if (!buffer || frame->linesize[i] <= 0) return FH_INTERNAL;
        out->data[i] = frame->data[i];
        out->bytes[i] = (size_t)(buffer->data + buffer->size - frame->data[i]);
        out->stride[i] = (size_t)frame->linesize[i];
    }
    out->width = (uint32_t)frame->width;
    out->height = (uint32_t)frame->height;
    out->depth = (uint32_t)format->comp[0].depth;
    out->log2_chroma_w = format->log2_chroma_w;
    out->log2_chroma_h = format->log2_chroma_h;
    out->matrix = (uint32_t)frame->colorspace;
    out->transfer = (uint32_t)frame->color_trc;
    switch (frame->color_range) {
    case AVCOL_RANGE_JPEG: out->range = FH_RANGE_FULL; break;
    case AVCOL_RANGE_MPEG: out->range = FH_RANGE_LIMITED; break;
    default: out->range = FH_RANGE_UNSPECIFIED; break;
    }
    if (frame->sample_aspect_ratio.num > 0 && frame->sample_aspect_ratio.den > 0) {
        out->sar_num = (uint32_t)frame->sample_aspect_ratio.num;
        out->sar_den = (uint32_t)frame->sample_aspect_ratio.den;
    } else {
        out->sar_den = 1;
    }
#ifdef AV_FRAME_FLAG_INTERLACED /* since FFmpeg 6.1; the field that it replaces is gone in later ones */
    out->interlaced = (frame->flags & AV_FRAME_FLAG_INTERLACED) != 0;
#else
    out->interlaced = frame->interlaced_frame != 0;
#endif
    const AVFrameSideData *side = av_frame_get_side_data(frame, AV_FRAME_DATA_DISPLAYMATRIX);
    if (side && side->size >= 9 * sizeof(int32_t)) {
        int32_t matrix[9];
        memcpy(matrix, side->data, sizeof matrix);
        out->has_display_matrix = 1;
        out->display_matrix[0] = matrix[0];
        out->display_matrix[1] = matrix[1];
        out->display_matrix[2] = matrix[3];
        out->display_matrix[3] = matrix[4];
    }
    return FH_OK;
}

int fh_decode(struct fh_decoder *decoder, const uint8_t *unit, size_t unit_bytes, int background, struct fh_picture *out) {
    memset(out, 0, sizeof *out);
    av_frame_unref(decoder->frame);
    decoder->background = background;
    decoder->no_memory = 0;
    int result = fill_packet(decoder, unit, unit_bytes);
    if (result == FH_OK) result = decode_one(decoder);
    av_packet_unref(decoder->packet);
    avcodec_flush_buffers(decoder->context);
    if (result != FH_OK) return result;
    /* The library calls a damaged picture a success and says the truth only here. */
    const int damaged = AV_FRAME_FLAG_CORRUPT | AV_FRAME_FLAG_DISCARD;
    if (decoder->frame->decode_error_flags != 0 || (decoder->frame->flags & damaged)) return FH_CORRUPT;
    return describe(decoder->frame, out);
}
