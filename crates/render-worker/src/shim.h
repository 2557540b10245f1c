/* What the Rust side sees of libavcodec: one decoder, one unit in, one picture out. Fields of FFmpeg's structures move
 * between its versions and their meaning moves into flags; all of that is settled in shim.c, so that the Rust side needs
 * neither bindings for the whole library nor a C parser to make them. Kept in step with src/decode/ffi.rs by hand. */
#ifndef FRAMEHOOK_SHIM_H
#define FRAMEHOOK_SHIM_H

#include <stddef.h>
#include <stdint.h>

enum fh_result {
    FH_OK = 0,
    /* The decoder refused the unit or flagged the picture. */
    FH_CORRUPT = 1,
    /* The decoder took the unit and put nothing out. */
    FH_NO_PICTURE = 2,
    FH_NO_MEMORY = 3,
    /* The library lacks the decoder, or the picture is of a kind that is not described below. */
    FH_UNSUPPORTED = 4,
    FH_INTERNAL = 5,
};

enum fh_codec { FH_H264 = 1 };

enum fh_range { FH_RANGE_UNSPECIFIED = 0, FH_RANGE_LIMITED = 1, FH_RANGE_FULL = 2 };

/* One decoded picture; valid until the next call with its decoder. */
struct fh_picture {
    /* Y, Cb, Cr. */
    const uint8_t *data[3];
    /* Readable bytes from data[i] on. */
    size_t bytes[3];
    /* Bytes from one row to the next. */
    size_t stride[3];
    uint32_t width;
    uint32_t height;
    /* Bits of a sample: 8 in one byte, more in two, little endian. */
    uint32_t depth;
    uint32_t log2_chroma_w;
    uint32_t log2_chroma_h;
    /* Code points of ITU-T H.273. */
    uint32_t matrix;
    uint32_t transfer;
    uint32_t range; /* enum fh_range */
    /* 0 of 1 when unknown. */
    uint32_t sar_num;
    uint32_t sar_den;
    uint32_t interlaced;
    uint32_t has_display_matrix;
    /* As in libavutil/display.h, first two columns of the first two rows: a b / c d, 16.16 fixed point. */
    int32_t display_matrix[4];
};

struct fh_decoder;

/* "libavcodec 59.37.100" and the like. */
const char *fh_library(void);

/* Silences the library: a hostile bitstream would otherwise write the log. Call once, first. */
void fh_quiet(void);

int fh_has_decoder(int codec);

/* Opens a decoder. `config` is the container's decoder config (avcC for H.264). */
int fh_open(int codec, const uint8_t *config, size_t config_bytes, int64_t pixels_max, struct fh_decoder **out);

/* Decodes one unit and forgets every picture before it. With `background` from 0 to 255 the picture's memory is set to
 * that byte first, so that what the unit does not paint can be told by decoding over two backgrounds; -1 leaves it. */
int fh_decode(struct fh_decoder *decoder, const uint8_t *unit, size_t unit_bytes, int background, struct fh_picture *out);

void fh_close(struct fh_decoder *decoder);

#endif
