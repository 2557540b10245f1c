//! Fuzz targets as plain functions: hostile bytes in, panic only if one of our own promises is broken.

use alloc::{format, string::String, vec, vec::Vec};

use bytes::BytesMut;

use crate::{
    Client, Error, Event, Limits, Publication, Session,
    chunk::{ChunkReader, Fate},
    handshake::RANDOM_BYTES,
    message::{Message, MessageHeader, MessageType},
};

/// Limits small enough for a fuzzer to reach.
const LIMITS: Limits = Limits {
    media_message_bytes_max: 4096,
    command_message_bytes_max: 1024,
    unpublished_bytes_max: 2048,
    chunk_streams_max: 4,
    partial_messages_max: 2,
    pinned_bytes_max: 5000,
    output_bytes_max: 4096,
};

/// However the bytes are split, the messages are the same, and so is the error behind them. The first byte chooses the
/// split.
pub fn chunk(data: &[u8]) {
    let Some((&seed, data)) = data.split_first() else { return };
    let whole = read_chunks(&[data]);
    let pieces: Vec<_> = pieces(data, seed).collect();
    assert_eq!(whole, read_chunks(&pieces));
    for message in &whole.0 {
        let Message { header, body } = message;
        assert!(header.len <= LIMITS.media_message_bytes_max);
        if let crate::message::Body::Kept(bytes) = body {
            assert_eq!(bytes.len(), header.len as usize);
        }
    }
}

fn read_chunks(inputs: &[&[u8]]) -> (Vec<Message>, Option<Error>) {
    let mut reader = ChunkReader::new(LIMITS);
    let mut messages = Vec::new();
    let keep = |header: &MessageHeader, head: &[u8]| match header.message_type {
        MessageType::CommandAmf0 => Fate::Keep,
        _ if head.first().is_some_and(|byte| byte >> 4 == 1) => Fate::Keep,
        _ => Fate::Skip,
    };
    for mut input in inputs.iter().copied() {
        loop {
            match reader.read(&mut input, keep) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
        assert!(input.is_empty());
    }
    (messages, None)
}

/// However the bytes behind an accepted publish are split, the events are the same, and so is the error behind them.
pub fn session(data: &[u8]) {
    let Some((&seed, data)) = data.split_first() else { return };
    let whole = play_session(&[data]);
    let pieces: Vec<_> = pieces(data, seed).collect();
    assert_eq!(whole, play_session(&pieces));
}

/// Any bytes instead of a handshake.
pub fn handshake(data: &[u8]) {
    let mut session = Session::new(LIMITS, &[0; RANDOM_BYTES]);
    let whole = session.push(data, |_| {});
    let mut session = Session::new(LIMITS, &[0; RANDOM_BYTES]);
    let bytewise = data.chunks(1).try_for_each(|byte| session.push(byte, |_| {}));
    assert_eq!(whole, bytewise);
}

fn play_session(inputs: &[&[u8]]) -> (Vec<String>, Option<Error>) {
    let (mut session, _) = publishing(LIMITS);
    let mut events = Vec::new();
    for input in inputs {
        let result = session.push(input, |event: Event| events.push(format!("{event:?}")));
        // A reader that keeps up: how far replies pile up depends on the split, so it must not decide here.
        session.consume_output(session.output().len());
        if let Err(error) = result {
            return (events, Some(error));
        }
    }
    (events, None)
}

/// A session that publishes, and the client on its other side.
pub fn publishing(limits: Limits) -> (Session, Client) {
    let publication = Publication {
        tc_url: "rtmp://localhost/live".into(),
        app: "live".into(),
        stream: "name?key=1".into(),
        flash_ver: "FMLE/3.0".into(),
        chunk_size: 128,
    };
    let mut session = Session::new(limits, &[1; RANDOM_BYTES]);
    let mut client = Client::new(publication, &[2; RANDOM_BYTES]);
    // Handshake, connect, createStream, publish: four turns.
    for _ in 0..4 {
        carry_over(&mut client, &mut session, |_| {});
        session.accept_publish();
        client.push(session.output(), |_| {}).expect("our server speaks to our client");
        session.consume_output(session.output().len());
    }
    assert!(client.is_publishing());
    (session, client)
}

/// Moves what the client has written to the session.
pub fn carry_over(client: &mut Client, session: &mut Session, sink: impl FnMut(Event)) {
    let output = BytesMut::from(client.output());
    client.consume_output(output.len());
    session.push(&output, sink).expect("our client speaks to our server");
}

/// Cuts `data` by a small generator, so that a seed names a split. Seed 0 cuts after every byte.
pub fn pieces(data: &[u8], seed: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    let mut state = u32::from(seed);
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = 1 + (state >> 24) as usize % 40;
        let (piece, behind) = rest.split_at(if seed == 0 { 1 } else { length.min(rest.len()) });
        rest = behind;
        Some(piece)
    })
}

/// Seeds for the corpora: what a fuzzer would take long to find by itself.
pub fn seeds() -> Vec<Vec<u8>> {
    let (_, mut client) = publishing(LIMITS);
    client.write_video(0, b"\x17\0\0\0\0\x01\x64\0\x0a\xff\xe1\0\x01\x67\x01\0\x01\x68");
    client.write_video(0x0100_0000, b"\x17\x01\0\0\0\0\0\0\x03\x65\x88\x80");
    client.write_audio(23, b"\xaf\x01\x21");
    client.unpublish();
    vec![[&[7], client.output()].concat()]
}
