//! Frames of HTTP/2 (RFC 9113, 4.1 and 6) for peers that write them by hand, since no library sends what is wrong.

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Flags of `DATA` and `HEADERS`.
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// `:status: 200` and `:status: 103` (RFC 7541, A and 6.2.2).
pub const STATUS_200: &[u8] = &[0x88];
pub const STATUS_103: &[u8] = b"\x08\x03103";

/// One frame.
///
/// # Panics
/// If `payload` is too long for a frame: 2^24 bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 1 << 24, "{} bytes do not fit into a frame", payload.len());
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header field of 4,000 bytes: with indexing, so that it fills the decoder's table and one byte repeats it (RFC 7541, 6.1
/// and 6.2.1), or without (6.2.2).
pub fn long_header(is_indexed: bool) -> Vec<u8> {
    let kind = if is_indexed { 0x40 } else { 0 };
    // The length as a prefix integer of 7 bits (RFC 7541, 5.1): 127 + 3873.
    [&[kind, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'y'; 4000]].concat()
}
