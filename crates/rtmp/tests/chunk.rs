//! Chunks on the wire: header forms, extended timestamps, interleaving, and any split of the bytes.

use bytes::{Bytes, BytesMut};
use framehook_rtmp::{
    Bound, Error, Limits,
    chunk::{CHUNK_SIZE_DEFAULT, ChunkError, ChunkReader, ChunkWriter, Fate},
    fuzz,
    message::{Body, Message, MessageHeader, MessageType},
};
use proptest::prelude::*;

fn read_all(reader: &mut ChunkReader, mut input: &[u8]) -> Result<Vec<Message>, Error> {
    let mut messages = Vec::new();
    while let Some(message) = reader.read(&mut input, |_, _| Fate::Keep)? {
        messages.push(message);
    }
    Ok(messages)
}

fn read(input: &[u8]) -> Result<Vec<Message>, Error> {
    let whole = read_all(&mut ChunkReader::new(Limits::default()), input);
    let mut reader = ChunkReader::new(Limits::default());
    let bytewise = input.chunks(1).map(|byte| read_all(&mut reader, byte)).collect::<Result<Vec<_>, _>>();
    assert_eq!(whole, bytewise.map(|messages| messages.concat()), "byte by byte must be the same");
    whole
}

fn message(message_type: MessageType, timestamp_ms: u32, stream_id: u32, body: &[u8]) -> Message {
    let header = MessageHeader { message_type, timestamp_ms, len: body.len() as u32, stream_id };
    Message { header, body: Body::Kept(Bytes::copy_from_slice(body)) }
}

fn audio(timestamp_ms: u32, body: &[u8]) -> Message {
    message(MessageType::Audio, timestamp_ms, 1, body)
}

#[test]
fn reads_each_header_form() {
    let cases: &[(&str, &[u8], &[Message])] = &[
        ("type 0", b"\x04\0\0\x05\0\0\x02\x08\x01\0\0\0ab", &[audio(5, b"ab")]),
        ("chunk stream 64, two bytes", b"\0\0\0\0\x05\0\0\x02\x08\x01\0\0\0ab", &[audio(5, b"ab")]),
        ("chunk stream 65599, three bytes", b"\x01\xff\xff\0\0\x05\0\0\x02\x08\x01\0\0\0ab", &[audio(5, b"ab")]),
        (
            "type 1 keeps the stream id, type 2 the length and type, type 3 all",
            b"\x04\0\0\x05\0\0\x02\x08\x01\0\0\0ab\x44\0\0\x14\0\0\x01\x08c\x84\0\0\x0ad\xc4e",
            &[audio(5, b"ab"), audio(25, b"c"), audio(35, b"d"), audio(45, b"e")],
        ),
        (
            "type 3 right after type 0 adds the absolute time once more",
            b"\x04\0\0\x17\0\0\x01\x08\x01\0\0\0a\xc4b",
            &[audio(23, b"a"), audio(46, b"b")],
        ),
        ("empty message", b"\x04\0\0\x05\0\0\0\x08\x01\0\0\0\xc4", &[audio(5, b""), audio(10, b"")]),
        (
            "librtmp opens its control stream with type 1",
            b"\x42\0\0\0\0\0\x06\x04\0\x07\0\0\0\x2a",
            &[message(MessageType::UserControl, 0, 0, b"\0\x07\0\0\0\x2a")],
        ),
        (
            "extended timestamp",
            b"\x04\xff\xff\xff\0\0\x02\x08\x01\0\0\0\x01\x02\x03\x04ab",
            &[audio(0x0102_0304, b"ab")],
        ),
        (
            "extended difference",
            b"\x04\0\0\x01\0\0\x01\x08\x01\0\0\0a\x84\xff\xff\xff\x01\0\0\0b",
            &[audio(1, b"a"), audio(0x0100_0001, b"b")],
        ),
        (
            "time wraps",
            b"\x04\xff\xff\xff\0\0\x01\x08\x01\0\0\0\xff\xff\xff\xfea\x84\0\0\x04b",
            &[audio(0xffff_fffe, b"a"), audio(2, b"b")],
        ),
    ];
    for (name, input, expected) in cases {
        assert_eq!(read(input).unwrap(), *expected, "{name}");
    }
}

/// 300 bytes at 2³¹ ms make three chunks of 128, whose second and third header carry the time again, or not.
fn long_extended(repeat: &[u8]) -> Vec<u8> {
    let body: Vec<u8> = (0..300).map(|index| index as u8 | 1).collect();
    let mut input = b"\x04\xff\xff\xff\0\x01\x2c\x08\x01\0\0\0\x80\0\0\0".to_vec();
    for (index, part) in body.chunks(CHUNK_SIZE_DEFAULT as usize).enumerate() {
        if index > 0 {
            input.push(0xc4);
            input.extend_from_slice(repeat);
        }
        input.extend_from_slice(part);
    }
    input
}

#[test]
fn extended_timestamp_may_be_repeated_or_not() {
    let repeated = read(&long_extended(&[0x80, 0, 0, 0])).unwrap();
    assert_eq!(repeated[0].header.timestamp_ms, 1 << 31);
    assert_eq!(repeated, read(&long_extended(&[])).unwrap());
}

#[test]
fn short_last_chunk_without_a_repeated_timestamp_waits_for_what_follows() {
    // 130 bytes: the last chunk has two, and four are needed to see that they are not the timestamp.
    let body = [7; 130];
    let mut input = b"\x04\xff\xff\xff\0\0\x82\x08\x01\0\0\0\x80\0\0\0".to_vec();
    input.extend_from_slice(&body[..128]);
    input.extend_from_slice(b"\xc4\x07\x07");
    let mut reader = ChunkReader::new(Limits::default());
    assert_eq!(read_all(&mut reader, &input), Ok(vec![]));
    let next = b"\x05\0\0\x05\0\0\x01\x08\x01\0\0\0a";
    let messages = read_all(&mut reader, next).unwrap();
    assert_eq!(messages, [audio(1 << 31, &body), audio(5, b"a")]);
    input.extend_from_slice(next);
    assert_eq!(read(&input).unwrap(), messages);
}

#[test]
fn messages_of_several_chunk_streams_interleave() {
    let first = [1; 200];
    let second = [2; 130];
    let mut input = b"\x04\0\0\x05\0\0\xc8\x08\x01\0\0\0".to_vec();
    input.extend_from_slice(&first[..128]);
    input.extend_from_slice(b"\x06\0\0\x07\0\0\x82\x09\x01\0\0\0");
    input.extend_from_slice(&second[..128]);
    input.push(0xc4);
    input.extend_from_slice(&first[128..]);
    input.push(0xc6);
    input.extend_from_slice(&second[128..]);
    assert_eq!(read(&input).unwrap(), [audio(5, &first), message(MessageType::Video, 7, 1, &second)]);
}

#[test]
fn abort_forgets_the_unfinished_message() {
    let mut input = b"\x04\0\0\x05\0\0\xc8\x08\x01\0\0\0".to_vec();
    input.extend_from_slice(&[1; 128]);
    input.extend_from_slice(b"\x02\0\0\0\0\0\x04\x02\0\0\0\0\0\0\0\x04"); // abort chunk stream 4
    input.extend_from_slice(b"\x02\0\0\0\0\0\x04\x02\0\0\0\0\0\0\0\x09"); // and one that does not exist
    input.extend_from_slice(b"\x04\0\0\x09\0\0\x01\x08\x01\0\0\0a");
    assert_eq!(read(&input).unwrap(), [audio(9, b"a")]);

    // The same for the highest chunk stream, whose id is 64 + 255 + 256 × 255.
    let mut input = b"\x01\xff\xff\0\0\x05\0\0\xc8\x08\x01\0\0\0".to_vec();
    input.extend_from_slice(&[1; 128]);
    input.extend_from_slice(b"\x02\0\0\0\0\0\x04\x02\0\0\0\0");
    input.extend_from_slice(&65_599_u32.to_be_bytes());
    input.extend_from_slice(b"\x01\xff\xff\0\0\x09\0\0\x01\x08\x01\0\0\0a");
    assert_eq!(read(&input).unwrap(), [audio(9, b"a")]);
}

#[test]
fn chunk_size_changes_between_chunks() {
    let mut input = b"\x02\0\0\0\0\0\x04\x01\0\0\0\0\0\0\0\x02".to_vec();
    input.extend_from_slice(b"\x04\0\0\x05\0\0\x03\x08\x01\0\0\0ab\xc4c");
    assert_eq!(read(&input).unwrap(), [audio(5, b"abc")]);
    // The largest value that the specification allows means "never cut".
    input[12..16].copy_from_slice(&0x7fff_ffff_u32.to_be_bytes());
    let long = [&input[..16], b"\x04\0\0\x05\0\x01\0\x08\x01\0\0\0", &[1; 256]].concat();
    assert_eq!(read(&long).unwrap(), [audio(5, &[1; 256])]);
}

#[test]
fn names_what_is_wrong() {
    let set_chunk_size = |size: u32| [&b"\x02\0\0\0\0\0\x04\x01\0\0\0\0"[..], &size.to_be_bytes()].concat();
    let media_max = u64::from(Limits::default().media_message_bytes_max);
    let inside = [&b"\x04\0\0\x05\0\0\xc8\x08\x01\0\0\0"[..], &[1; 128], b"\x44\0\0\x05\0\0\x05\x08"].concat();
    let cases: &[(&str, &[u8], Error)] = &[
        ("type 3 first", b"\xc4", Error::Chunk(ChunkError::NothingToReferTo { chunk_stream_id: 4, format: 3 })),
        ("type 2 first", b"\x85\0\0\0", Error::Chunk(ChunkError::NothingToReferTo { chunk_stream_id: 5, format: 2 })),
        (
            "new header inside a message",
            &inside,
            Error::Chunk(ChunkError::HeaderInsideMessage { chunk_stream_id: 4, missing: 72 }),
        ),
        ("chunk size 0", &set_chunk_size(0), Error::Chunk(ChunkError::InvalidChunkSize(0))),
        ("chunk size 2³¹", &set_chunk_size(1 << 31), Error::Chunk(ChunkError::InvalidChunkSize(1 << 31))),
        (
            "control message of the wrong length",
            b"\x02\0\0\0\0\0\x05\x01\0\0\0\0",
            Error::ControlLength { message_type: 1, bytes: 5, expected: 4 },
        ),
        (
            "peer bandwidth without its type",
            b"\x02\0\0\0\0\0\x04\x06\0\0\0\0\0\0\0\0",
            Error::ControlLength { message_type: 6, bytes: 4, expected: 5 },
        ),
        (
            "16 MiB announced",
            b"\x04\0\0\0\xff\xff\xff\x09\x01\0\0\0",
            Error::Exceeded { bound: Bound::MediaMessageBytes, value: 0x00ff_ffff, max: media_max },
        ),
    ];
    for (name, input, expected) in cases {
        assert_eq!(read(input).as_ref(), Err(expected), "{name}");
    }
}

#[test]
fn writes_the_shortest_header_that_is_understood() {
    let mut writer = ChunkWriter::new();
    let mut out = BytesMut::new();
    let mut write_to = |stream_id, timestamp_ms, body: &[u8]| {
        let from = out.len();
        writer.write(&mut out, 4, MessageType::Audio, timestamp_ms, stream_id, body);
        (out[from] >> 6, out.len() - from - body.len())
    };
    let mut write = |timestamp_ms, body| write_to(1, timestamp_ms, body);
    assert_eq!(write(0, b"ab"), (0, 12));
    assert_eq!(write(23, b"abc"), (1, 8));
    assert_eq!(write(50, b"def"), (2, 4));
    assert_eq!(write(77, b"ghi"), (3, 1));
    assert_eq!(write(76, b"jkl"), (0, 12), "time stepped back");
    assert_eq!(write(152, b"mno"), (2, 4), "readers disagree on type 3 behind type 0");
    assert_eq!(write(0x0100_0100, b"pqr"), (2, 8), "extended");
    assert_eq!(write_to(2, 0x0100_0120, b"stu"), (0, 16), "another message stream");
    assert_eq!(write_to(2, 0x0100_0140, b"vwx"), (2, 4), "behind it, type 3 would be a type 3 behind type 0");
}

#[derive(Clone, Debug)]
struct Written {
    chunk_stream_id: u32,
    message: Message,
}

fn any_message() -> impl Strategy<Value = Written> {
    let chunk_stream_id = prop_oneof![2_u32..8, 62_u32..68, 318_u32..324, 65_595_u32..=65_599];
    let timestamp = prop_oneof![0_u32..100, 0x00ff_fff0_u32..0x0100_0010, any::<u32>()];
    let message_type = prop_oneof![Just(8_u8), Just(9), Just(18), Just(20), Just(22), Just(99)];
    let body = proptest::collection::vec(any::<u8>(), 0..400);
    (chunk_stream_id, timestamp, message_type, 0_u32..3, body).prop_map(
        |(chunk_stream_id, time, type_id, stream_id, body)| {
            let message = message(MessageType::from_id(type_id), time, stream_id, &body);
            Written { chunk_stream_id, message }
        },
    )
}

fn body_of(message: &Message) -> &[u8] {
    match &message.body {
        Body::Kept(bytes) => bytes,
        Body::Skipped(head) => head.bytes(),
    }
}

proptest! {
    #[test]
    fn reader_understands_writer_at_any_chunk_size_and_split(
        messages in proptest::collection::vec((any_message(), proptest::option::of(1_u32..300)), 1..12),
        seed in any::<u8>(),
    ) {
        let mut writer = ChunkWriter::new();
        let mut out = BytesMut::new();
        for (Written { chunk_stream_id, message }, chunk_size) in &messages {
            if let Some(size) = chunk_size {
                writer.set_chunk_size(&mut out, *size);
            }
            let MessageHeader { message_type, timestamp_ms, stream_id, .. } = message.header;
            writer.write(&mut out, *chunk_stream_id, message_type, timestamp_ms, stream_id, body_of(message));
        }
        let mut reader = ChunkReader::new(Limits::default());
        let mut read = Vec::new();
        for piece in fuzz::pieces(&out, seed) {
            read.extend(read_all(&mut reader, piece).unwrap());
        }
        let written: Vec<_> = messages.into_iter().map(|(written, _)| written.message).collect();
        prop_assert_eq!(read, written);
    }

    #[test]
    fn any_bytes_read_the_same_however_they_are_split(data in proptest::collection::vec(any::<u8>(), 0..600)) {
        fuzz::chunk(&data);
    }

    #[test]
    fn damaged_chunks_read_the_same_however_they_are_split(
        at in any::<prop::sample::Index>(), value in any::<u8>(), seed in any::<u8>(),
    ) {
        let mut data = fuzz::seeds().remove(0);
        let index = at.index(data.len());
        data[index] = value;
        data[0] = seed;
        fuzz::chunk(&data);
        fuzz::session(&data);
    }
}
