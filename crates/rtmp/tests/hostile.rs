//! What a peer can do to one connection: it is cut off with a reason, and what it costs until then is bounded.

use bytes::BytesMut;
use framehook_media::amf0;
use framehook_rtmp::{
    Bound, Error, Event, Limits, Phase, Session,
    chunk::ChunkWriter,
    fuzz::{carry_over, publishing},
    handshake::{HandshakeError, RANDOM_BYTES},
    message::MessageType,
};
use proptest::prelude::*;

fn exceeded(bound: Bound, value: u64, max: impl TryInto<u64>) -> Result<(), Error> {
    Err(Error::Exceeded { bound, value, max: max.try_into().ok().expect("limits are small") })
}

/// A session behind its handshake, before `connect`.
fn shaken(limits: Limits) -> Session {
    let mut session = Session::new(limits, &[1; RANDOM_BYTES]);
    session.push(&[&[3][..], &[0; 2 * 1536]].concat(), |_| {}).unwrap();
    session
}

fn quiet(event: Event) {
    panic!("nothing to tell, but {event:?}");
}

/// The header of a chunk of type 0 on a chunk stream of the one-byte form.
fn announce(chunk_stream_id: u8, message_type: MessageType, len: u32) -> Vec<u8> {
    let [_, l0, l1, l2] = len.to_be_bytes();
    vec![chunk_stream_id, 0, 0, 0, l0, l1, l2, message_type.id(), 1, 0, 0, 0]
}

#[test]
fn sixteen_megabytes_are_refused_when_they_are_announced() {
    let limits = Limits::default();
    for message_type in [MessageType::Audio, MessageType::Video, MessageType::Other(99)] {
        let (mut session, _) = publishing(limits);
        let error = session.push(&announce(5, message_type, 0x00ff_ffff), quiet);
        assert_eq!(error, exceeded(Bound::MediaMessageBytes, 0x00ff_ffff, limits.media_message_bytes_max));
        assert_eq!(session.phase(), Phase::Ended);
    }
    for message_type in [MessageType::CommandAmf0, MessageType::CommandAmf3, MessageType::DataAmf0] {
        let mut session = shaken(limits);
        let error = session.push(&announce(5, message_type, 65_537), quiet);
        assert_eq!(error, exceeded(Bound::CommandMessageBytes, 65_537, limits.command_message_bytes_max));
    }
}

#[test]
fn chunk_streams_are_counted() {
    let limits = Limits::default();
    let mut session = shaken(limits);
    let mut input = Vec::new();
    for low in 0..=255_u8 {
        // Two-byte form: chunk streams 64 to 319, each with one byte of a long audio message.
        input.extend_from_slice(&[0, low]);
        input.extend_from_slice(&announce(0, MessageType::Audio, 0)[1..]);
    }
    let error = session.push(&input, quiet);
    assert_eq!(error, exceeded(Bound::ChunkStreams, 33, limits.chunk_streams_max));
}

/// Begins a keyframe of `len` bytes on a chunk stream and sends its first chunk.
fn begin_keyframe(chunk_stream_id: u8, len: u32) -> Vec<u8> {
    let mut chunk = announce(chunk_stream_id, MessageType::Video, len);
    chunk.extend_from_slice(b"\x17\x01\0\0\0");
    chunk.resize(12 + 128, 0);
    chunk
}

fn with_config(limits: Limits) -> Session {
    let (mut session, mut client) = publishing(limits);
    client.write_video(0, b"\x17\0\0\0\0\x01\x64\0\x0a\xff\xe1\0\x02\x67\x64\x01\0\x02\x68\xeb");
    carry_over(&mut client, &mut session, |_| {});
    session
}

#[test]
fn unfinished_messages_are_counted() {
    let limits = Limits::default();
    let mut session = with_config(limits);
    for chunk_stream_id in 10..14 {
        session.push(&begin_keyframe(chunk_stream_id, 1000), quiet).unwrap();
    }
    let error = session.push(&begin_keyframe(14, 1000), quiet);
    assert_eq!(error, exceeded(Bound::PartialMessages, 5, limits.partial_messages_max));
}

#[test]
fn bytes_reserved_for_unfinished_messages_are_counted() {
    let limits = Limits::default();
    let mut session = with_config(limits);
    session.push(&begin_keyframe(10, 8 << 20), quiet).unwrap();
    session.push(&begin_keyframe(11, 1 << 20), quiet).unwrap();
    let error = session.push(&begin_keyframe(12, 1000), quiet);
    assert_eq!(error, exceeded(Bound::PinnedBytes, (9 << 20) + 1000, limits.pinned_bytes_max));
}

#[test]
fn an_abort_gives_back_what_was_reserved() {
    let mut session = with_config(Limits::default());
    for _ in 0..1000 {
        session.push(&begin_keyframe(10, 8 << 20), quiet).unwrap();
        let mut abort = announce(2, MessageType::Abort, 4);
        abort.extend_from_slice(&[0, 0, 0, 10]);
        session.push(&abort, quiet).unwrap();
    }
}

#[test]
fn skipped_messages_reserve_nothing() {
    // Audio and inter pictures of the largest size on every chunk stream at once: more than the pinned bytes allow,
    // were they kept.
    let mut session = with_config(Limits::default());
    for chunk_stream_id in 10..30 {
        session.push(&announce(chunk_stream_id, MessageType::Audio, 8 << 20), quiet).unwrap();
        session.push(&[0xaf; 128], quiet).unwrap();
    }
}

#[test]
fn a_config_too_long_to_be_one_reserves_nothing() {
    let mut session = with_config(Limits { pinned_bytes_max: 100 << 10, ..Limits::default() });
    let mut begin_config = |chunk_stream_id, len| {
        let mut chunk = announce(chunk_stream_id, MessageType::Video, len);
        chunk.extend_from_slice(b"\x17\0\0\0\0\x01\x64\0");
        chunk.resize(12 + 128, 0);
        session.push(&chunk, quiet)
    };
    begin_config(10, 65 << 10).unwrap();
    begin_config(11, 65 << 10).unwrap();
    // One that may be read is kept, and a second one would be too much.
    begin_config(12, 60 << 10).unwrap();
    let error = begin_config(13, 60 << 10);
    assert_eq!(error, exceeded(Bound::PinnedBytes, 120 << 10, 100_u64 << 10));
}

#[test]
fn commands_before_the_publish_are_bounded_in_sum() {
    let limits = Limits::default();
    let mut session = shaken(limits);
    let mut writer = ChunkWriter::new();
    let mut pushed = 0;
    let error = loop {
        let mut out = BytesMut::new();
        writer.write(&mut out, 3, MessageType::CommandAmf0, 0, 0, b"\x02\0\x01x\0\0\0\0\0\0\0\0\0");
        pushed += out.len();
        assert!(pushed < 2 * limits.unpublished_bytes_max as usize, "the sum is not bounded");
        if let Err(error) = session.push(&out, quiet) {
            break error;
        }
    };
    assert!(matches!(error, Error::Exceeded { bound: Bound::UnpublishedBytes, .. }), "{error}");
}

#[test]
fn publishing_over_and_over_without_a_decision_is_bounded() {
    let (mut session, mut client) = publishing(Limits::default());
    client.unpublish();
    carry_over(&mut client, &mut session, |_| {});
    let mut writer = ChunkWriter::new();
    let mut out = BytesMut::new();
    let mut publish = |session: &mut Session| {
        out.clear();
        let command: &[u8] = b"\x02\0\x07publish\0\0\0\0\0\0\0\0\0\x05\x02\0\x04name";
        writer.write(&mut out, 6, MessageType::CommandAmf0, 0, 1, command);
        writer.write(&mut out, 7, MessageType::CommandAmf0, 0, 1, b"\x02\0\x0bFCUnpublish\0\0\0\0\0\0\0\0\0\x05");
        let result = session.push(&out, |_| {});
        session.consume_output(session.output().len());
        result
    };
    let error = (0..2000).find_map(|_| publish(&mut session).err()).expect("it must end");
    assert!(matches!(error, Error::Exceeded { bound: Bound::UnpublishedBytes, .. }), "{error}");
}

#[test]
fn replies_that_nobody_reads_are_bounded() {
    let limits = Limits::default();
    let (mut session, _) = publishing(limits);
    let mut writer = ChunkWriter::new();
    let mut out = BytesMut::new();
    for _ in 0..10_000 {
        writer.write_control(&mut out, MessageType::UserControl, &[0, 6, 1, 2, 3, 4]);
    }
    let error = session.push(&out, quiet).unwrap_err();
    assert!(matches!(error, Error::Exceeded { bound: Bound::OutputBytes, .. }), "{error}");
    assert!(session.output().len() < limits.output_bytes_max + 1024);
}

#[test]
fn deep_nesting_is_refused() {
    let mut session = shaken(Limits::default());
    let mut body = b"\x02\0\x07connect\0\x3f\xf0\0\0\0\0\0\0".to_vec();
    body.extend_from_slice(&b"\x0a\0\0\0\x01".repeat(10_000));
    let mut out = BytesMut::new();
    ChunkWriter::new().write(&mut out, 3, MessageType::CommandAmf0, 0, 0, &body);
    let error = session.push(&out, quiet);
    let offset = 19 + 5 * amf0::DEPTH_MAX;
    assert_eq!(error, Err(Error::Command(amf0::Amf0Error::TooDeep { offset })));
}

#[test]
fn other_protocols_are_named_by_their_first_byte() {
    let cases: [(&[u8], HandshakeError); 3] = [
        (b"GET / HTTP/1.1\r\n", HandshakeError::Http),
        (b"\x16\x03\x01\x02\0", HandshakeError::Tls),
        (b"\0", HandshakeError::UnsupportedVersion(0)),
    ];
    for (input, expected) in cases {
        let mut session = Session::new(Limits::default(), &[1; RANDOM_BYTES]);
        assert_eq!(session.push(input, quiet), Err(Error::Handshake(expected)));
        assert!(session.output().is_empty());
    }
}

#[test]
fn a_session_cut_short_anywhere_has_an_answer_and_nothing_more() {
    let data = framehook_rtmp::fuzz::seeds().remove(0);
    for end in 0..data.len() {
        let mut session = with_config(Limits::default());
        session.push(&data[1..=end], |_| {}).unwrap();
        assert!(session.output().len() < 1000);
    }
}

#[test]
fn one_byte_chunks_are_slow_and_harmless() {
    let mut session = with_config(Limits::default());
    let mut input = announce(2, MessageType::SetChunkSize, 4);
    input.extend_from_slice(&1_u32.to_be_bytes());
    input.extend_from_slice(&announce(10, MessageType::Video, 7));
    for (index, byte) in b"\x17\x01\0\0\0\x65\x88".iter().enumerate() {
        input.extend_from_slice(&[0xca, *byte][usize::from(index == 0)..]);
    }
    let mut events = 0;
    session.push(&input, |_| events += 1).unwrap();
    assert_eq!(events, 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_after_the_publish_are_survived(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        framehook_rtmp::fuzz::session(&data);
    }

    #[test]
    fn any_bytes_instead_of_a_handshake_are_survived(data in proptest::collection::vec(any::<u8>(), 0..50)) {
        framehook_rtmp::fuzz::handshake(&data);
    }
}
