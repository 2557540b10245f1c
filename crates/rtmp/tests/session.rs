//! What a session says to encoders and to its driver.

use bytes::BytesMut;
use framehook_media::{
    Codec,
    amf0::{self, Value},
    avcc::AvccError,
    flv::{AudioCodec, VideoCodec},
};
use framehook_rtmp::{
    Bound, Client, ClientEvent, Error, Event, Limits, MediaKind, Phase, Session, UnpublishedBy,
    chunk::{ChunkReader, ChunkWriter, Fate},
    command::{Command, status},
    fuzz::{carry_over, publishing},
    handshake::RANDOM_BYTES,
    message::{Body, Message, MessageType},
};

const CONFIG: &[u8] = b"\x17\0\0\0\0\x01\x64\0\x0a\xff\xe1\0\x02\x67\x64\x01\0\x02\x68\xeb";
const OTHER_CONFIG: &[u8] = b"\x17\0\0\0\0\x01\x64\0\x0a\xfd\xe1\0\x02\x67\x65\x01\0\x02\x68\xeb";
const IDR: &[u8] = b"\x17\x01\0\0\x50\0\0\0\x03\x65\x88\x80";
const INTER: &[u8] = b"\x27\x01\0\0\0\0\0\0\x02\x41\x9a";
const AAC: &[u8] = b"\xaf\x01\x21\x00";

/// Any peer at all: writes commands as they are told to, and reads what comes back.
struct Peer {
    session: Session,
    writer: ChunkWriter,
    replies: ChunkReader,
    events: Vec<Event>,
}

impl Peer {
    /// A peer that has shaken hands.
    fn new() -> Self {
        let mut session = Session::new(Limits::default(), &[1; RANDOM_BYTES]);
        session.push(&[&[3][..], &[0; 2 * 1536]].concat(), |_| {}).unwrap();
        session.consume_output(1 + 2 * 1536);
        let replies = ChunkReader::new(Limits::default());
        Self { session, writer: ChunkWriter::new(), replies, events: Vec::new() }
    }

    fn connected() -> Self {
        let mut peer = Self::new();
        peer.command(0, "connect", 1.0, &[connect_object()]).unwrap();
        peer.replies();
        peer
    }

    fn send(&mut self, message_type: MessageType, stream_id: u32, body: &[u8]) -> Result<(), Error> {
        let mut out = BytesMut::new();
        self.writer.write(&mut out, 3, message_type, 0, stream_id, body);
        self.session.push(&out, |event| self.events.push(event))
    }

    fn command(&mut self, stream_id: u32, name: &str, transaction: f64, arguments: &[Value]) -> Result<(), Error> {
        self.send(MessageType::CommandAmf0, stream_id, &command(name, transaction, arguments))
    }

    /// Everything the session has answered since the last time.
    fn replies(&mut self) -> Vec<Message> {
        let mut output = self.session.output();
        let mut replies = Vec::new();
        while let Some(reply) = self.replies.read(&mut output, |_, _| Fate::Keep).unwrap() {
            replies.push(reply);
        }
        self.session.consume_output(self.session.output().len());
        replies
    }

    fn commands(&mut self) -> Vec<Command> {
        let replies = self.replies();
        let bodies = replies.iter().filter_map(|reply| match &reply.body {
            Body::Kept(bytes) if reply.header.message_type == MessageType::CommandAmf0 => Some(bytes),
            _ => None,
        });
        bodies.map(|body| Command::parse(body).unwrap()).collect()
    }

    /// Name and status code, or first argument, of each command that came back.
    fn answers(&mut self) -> Vec<(String, String)> {
        let answer = |command: Command| {
            let argument = command.arguments.get(1).cloned().unwrap_or(Value::Null);
            let code = argument.get("code").and_then(Value::as_str).map(String::from);
            (command.name, code.unwrap_or_else(|| format!("{argument:?}")))
        };
        self.commands().into_iter().map(answer).collect()
    }
}

fn command(name: &str, transaction: f64, arguments: &[Value]) -> Vec<u8> {
    let mut body = Vec::new();
    amf0::write(&mut body, &Value::string(name));
    amf0::write(&mut body, &Value::Number(transaction));
    arguments.iter().for_each(|argument| amf0::write(&mut body, argument));
    body
}

fn connect_object() -> Value {
    Value::object([
        ("app", Value::string("live")),
        ("tcUrl", Value::string("rtmp://push.example.com/live")),
        ("flashVer", Value::string("FMLE/3.0")),
    ])
}

fn publish_arguments(name: &str) -> [Value; 3] {
    [Value::Null, Value::string(name), Value::string("live")]
}

fn answer(name: &str, argument: &str) -> (String, String) {
    (name.into(), argument.into())
}

/// What the events of a push say, one word each.
fn words(events: &[Event]) -> Vec<String> {
    let word = |event: &Event| match event {
        Event::Publish(request) => format!("publish {}", request.stream),
        Event::Metadata(metadata) => format!("metadata {:?}", metadata.width),
        Event::Config(config) => format!("config of {}", config.record.len()),
        Event::BadConfig(error) => format!("bad config: {error}"),
        Event::EntryPoint(unit) => {
            format!("entry point {} of {}", unit.dts_ms, unit.data.len())
        }
        Event::Media(media) => match media.kind {
            MediaKind::Audio { codec } => format!("audio {}", codec.map_or("none".into(), |codec| codec.to_string())),
            MediaKind::Picture { codec, keyframe } => {
                format!("{} {codec}", if keyframe { "keyframe" } else { "picture" })
            }
            MediaKind::Video { codec } => format!("video {}", codec.map_or("none".into(), |codec| codec.to_string())),
            MediaKind::Data => "data".into(),
        },
        Event::UnsupportedVideo(codec) => format!("unsupported {codec}"),
        Event::Unpublish { by } => format!("unpublish by {by:?}"),
    };
    events.iter().map(word).collect()
}

fn play(session: &mut Session, client: &mut Client) -> Vec<String> {
    let mut events = Vec::new();
    carry_over(client, session, |event| events.push(event));
    words(&events)
}

#[test]
fn answers_what_encoders_ask_before_they_publish() {
    let mut peer = Peer::new();
    assert_eq!(peer.session.phase(), Phase::Connect);
    peer.command(0, "connect", 1.0, &[connect_object()]).unwrap();
    assert_eq!(peer.session.phase(), Phase::Publish);
    let replies = peer.replies();
    let types: Vec<_> = replies.iter().map(|reply| reply.header.message_type).collect();
    assert_eq!(types, [MessageType::WindowAckSize, MessageType::SetPeerBandwidth, MessageType::CommandAmf0]);

    for name in ["releaseStream", "FCPublish", "createStream", "_checkbw", "getStreamLength", "madeUpCall"] {
        peer.command(0, name, 2.0, &[Value::Null, Value::string("name")]).unwrap();
    }
    let expected = [
        answer("_result", "Undefined"),
        answer("onFCPublish", status::PUBLISH_START),
        answer("_result", "Undefined"),
        answer("_result", "Number(1.0)"),
        answer("_result", "Undefined"),
        answer("_result", "Number(0.0)"),
    ];
    assert_eq!(peer.answers(), expected);

    peer.command(1, "publish", 3.0, &publish_arguments("name?key=1")).unwrap();
    assert_eq!(peer.session.phase(), Phase::Decision);
    assert!(peer.answers().is_empty(), "the driver decides");
    assert!(peer.session.accept_publish());
    assert_eq!(peer.session.phase(), Phase::Media);
    assert_eq!(peer.answers(), [answer("onStatus", status::PUBLISH_START)]);
    let Some(Event::Publish(request)) = peer.events.first() else { panic!("{:?}", peer.events) };
    assert_eq!(request.tc_url, "rtmp://push.example.com/live");
    assert_eq!((request.app.as_str(), request.stream.as_str()), ("live", "name?key=1"));
}

#[test]
fn connect_is_answered_with_its_transaction_and_amf0() {
    let mut peer = Peer::new();
    peer.command(0, "connect", 7.0, &[connect_object()]).unwrap();
    let [result] = &peer.commands()[..] else { panic!("one command answers connect") };
    assert_eq!((result.name.as_str(), result.transaction_id), ("_result", 7.0));
    let information = &result.arguments[1];
    assert_eq!(information.get("code").and_then(Value::as_str), Some(status::CONNECT_SUCCESS));
    assert_eq!(information.get("objectEncoding").and_then(Value::as_number), Some(0.0));
}

#[test]
fn commands_wrapped_for_amf3_are_understood() {
    let mut peer = Peer::new();
    let wrapped = |name, arguments: &[Value]| [&[0][..], &command(name, 1.0, arguments)].concat();
    peer.send(MessageType::CommandAmf3, 0, &wrapped("connect", &[connect_object()])).unwrap();
    peer.send(MessageType::CommandAmf3, 1, &wrapped("publish", &publish_arguments("name"))).unwrap();
    assert_eq!(words(&peer.events), ["publish name"]);
}

#[test]
fn refusal_carries_code_and_description_and_ends_the_session() {
    let mut peer = Peer::connected();
    peer.command(1, "publish", 3.0, &publish_arguments("name")).unwrap();
    assert!(peer.session.refuse_publish(status::PUBLISH_DENIED, "18/301: push domain is not known"));
    assert_eq!(peer.session.phase(), Phase::Ended);
    let commands = peer.commands();
    let information: Vec<_> = commands.iter().map(|command| &command.arguments[1]).collect();
    let codes: Vec<_> = information.iter().filter_map(|info| info.get("code")).filter_map(Value::as_str).collect();
    assert_eq!(codes, [status::PUBLISH_DENIED, status::FAILED]);
    for info in information {
        assert_eq!(info.get("level").and_then(Value::as_str), Some("error"));
        assert_eq!(info.get("description").and_then(Value::as_str), Some("18/301: push domain is not known"));
    }
    // Whatever still comes is passed over.
    peer.command(1, "publish", 4.0, &publish_arguments("name")).unwrap();
    peer.session.push(&[0xff; 1000], |_| panic!("an ended session tells nothing")).unwrap();
    assert!(peer.session.output().is_empty());
    assert!(!peer.session.accept_publish());
}

#[test]
fn our_client_sees_acceptance_refusal_and_displacement() {
    let (mut session, mut client) = publishing(Limits::default());
    session.cut(status::PUBLISH_DENIED, "21/102: displaced");
    let mut said = Vec::new();
    client.push(session.output(), |event| said.push(event)).unwrap();
    let refused = |code: &str| ClientEvent::Refused { code: code.into(), description: "21/102: displaced".into() };
    assert_eq!(said, [refused(status::PUBLISH_DENIED), refused(status::FAILED)]);
    assert!(!client.is_publishing());
    assert!(!client.write_video(0, IDR));
}

#[test]
fn second_publish_on_a_connection_is_refused_and_the_first_goes_on() {
    let mut peer = Peer::connected();
    peer.command(1, "publish", 3.0, &publish_arguments("first")).unwrap();
    peer.command(2, "publish", 4.0, &publish_arguments("while it is decided")).unwrap();
    assert_eq!(peer.answers(), [answer("onStatus", status::PUBLISH_BAD_NAME)]);
    peer.session.accept_publish();
    peer.replies();
    peer.command(2, "publish", 5.0, &publish_arguments("second")).unwrap();
    assert_eq!(peer.answers(), [answer("onStatus", status::PUBLISH_BAD_NAME)]);
    peer.send(MessageType::Audio, 1, AAC).unwrap();
    assert_eq!(words(&peer.events), ["publish first", "audio aac"]);
}

#[test]
fn playing_is_refused_and_publishing_still_possible() {
    let mut peer = Peer::connected();
    peer.command(1, "play", 3.0, &[Value::Null, Value::string("name")]).unwrap();
    assert_eq!(peer.answers(), [answer("onStatus", status::PLAY_FAILED)]);
    peer.command(1, "publish", 4.0, &publish_arguments("name")).unwrap();
    assert_eq!(peer.session.phase(), Phase::Decision);
}

#[test]
fn a_publish_ends_once_and_another_may_follow() {
    let ends: [(&str, u32, Option<Value>, UnpublishedBy); 4] = [
        ("FCUnpublish", 0, Some(Value::string("name")), UnpublishedBy::FcUnpublish),
        ("deleteStream", 0, Some(Value::Number(1.0)), UnpublishedBy::DeleteStream),
        ("deleteStream", 0, None, UnpublishedBy::DeleteStream),
        ("closeStream", 1, None, UnpublishedBy::CloseStream),
    ];
    for (name, stream_id, argument, expected) in ends {
        let mut peer = Peer::connected();
        peer.command(1, "publish", 3.0, &publish_arguments("name")).unwrap();
        peer.session.accept_publish();
        // Another stream of the same connection is no concern of this one.
        peer.command(0, "deleteStream", 0.0, &[Value::Null, Value::Number(9.0)]).unwrap();
        peer.command(9, "closeStream", 0.0, &[Value::Null]).unwrap();
        assert_eq!(peer.session.phase(), Phase::Media, "{name}");
        peer.replies();

        let arguments: Vec<_> = [Value::Null].into_iter().chain(argument).collect();
        peer.command(stream_id, name, 4.0, &arguments).unwrap();
        peer.command(0, "deleteStream", 5.0, &[Value::Null, Value::Number(1.0)]).unwrap();
        peer.send(MessageType::Audio, 1, AAC).unwrap();
        assert_eq!(peer.session.phase(), Phase::Publish, "{name}");
        assert!(peer.answers().contains(&answer("onStatus", status::UNPUBLISH_SUCCESS)), "{name}");

        peer.command(1, "publish", 6.0, &publish_arguments("again")).unwrap();
        peer.session.accept_publish();
        peer.send(MessageType::Audio, 1, AAC).unwrap();
        let ended = format!("unpublish by {expected:?}");
        assert_eq!(words(&peer.events), ["publish name", &ended, "publish again", "audio aac"], "{name}");
    }
}

#[test]
fn a_publish_withdrawn_before_the_decision_cannot_be_accepted() {
    let mut peer = Peer::connected();
    peer.command(1, "publish", 3.0, &publish_arguments("name")).unwrap();
    peer.command(0, "FCUnpublish", 4.0, &[Value::Null, Value::string("name")]).unwrap();
    assert!(!peer.session.accept_publish());
    assert!(!peer.session.refuse_publish(status::PUBLISH_DENIED, "late"));
    assert_eq!(peer.session.phase(), Phase::Publish);
    assert_eq!(words(&peer.events), ["publish name", "unpublish by FcUnpublish"]);
}

#[test]
fn before_the_decision_only_config_and_metadata_are_told() {
    let mut peer = Peer::connected();
    peer.send(MessageType::Video, 1, CONFIG).unwrap();
    peer.command(1, "publish", 3.0, &publish_arguments("name")).unwrap();
    let mut metadata = Vec::new();
    amf0::write(&mut metadata, &Value::string("onMetaData"));
    amf0::write(&mut metadata, &Value::object([("width", Value::Number(640.0))]));
    peer.send(MessageType::DataAmf0, 1, &metadata).unwrap();
    peer.send(MessageType::Video, 1, CONFIG).unwrap();
    peer.send(MessageType::Video, 1, IDR).unwrap();
    peer.send(MessageType::Audio, 1, AAC).unwrap();
    peer.session.accept_publish();
    peer.send(MessageType::Video, 1, IDR).unwrap();
    assert_eq!(words(&peer.events), ["publish name", "metadata Some(640)", "config of 15", "entry point 0 of 7"]);
}

#[test]
fn media_becomes_events() {
    let (mut session, mut client) = publishing(Limits::default());
    let metadata = Value::EcmaArray(vec![("width".into(), Value::Number(640.0))]);
    client.write_video(0, IDR);
    client.write_metadata(&metadata);
    client.write_metadata(&metadata);
    client.write_video(0, CONFIG);
    client.write_video(40, IDR);
    client.write_audio(41, AAC);
    client.write_audio(60, b"");
    client.write_video(80, INTER);
    client.write_video(81, b"");
    client.write_video(120, CONFIG);
    client.write_video(160, OTHER_CONFIG);
    client.write_video(200, b"\x17\x01\0\0\0\0\x03\x65\x88\x80");
    client.write_video(240, b"\x17\x01\0\0\0\0\x02\x41\x9a");
    client.write_video(280, b"\x17\x02\0\0\0");
    client.unpublish();
    let expected = [
        "keyframe h264", // no config yet
        "metadata Some(640)",
        "data", // nothing new
        "config of 15",
        "entry point 40 of 7",
        "audio aac",
        "audio none",
        "picture h264",
        "video none",
        "video h264", // the same config again
        "config of 15",
        "entry point 200 of 5", // two-byte lengths now
        "keyframe h264",        // the container's claim is wrong
        "video h264",           // end of sequence
        "unpublish by FcUnpublish",
    ];
    assert_eq!(play(&mut session, &mut client), expected);
}

#[test]
fn enhanced_h264_is_understood() {
    let (mut session, mut client) = publishing(Limits::default());
    client.write_video(0, &[b"\x90avc1", &CONFIG[5..]].concat());
    client.write_video(40, &[b"\x91avc1\0\0\x50", &IDR[5..]].concat());
    client.write_video(80, &[b"\x93avc1", &IDR[5..]].concat());
    client.write_audio(80, b"\x90Opus\x01");
    let expected = ["config of 15", "entry point 40 of 7", "entry point 80 of 7", "audio opus"];
    assert_eq!(play(&mut session, &mut client), expected);
}

#[test]
fn unsupported_video_is_told_once_and_again_when_it_changes() {
    let (mut session, mut client) = publishing(Limits::default());
    client.write_video(0, b"\x90hvc1\x01");
    client.write_video(0, b"\x91hvc1\0\0\0\x01");
    client.write_video(40, b"\x91av01\x12\0");
    client.write_video(80, b"\x12");
    client.write_video(120, CONFIG);
    client.write_video(120, b"\x12");
    let expected = [
        "unsupported hevc",
        "video hevc",
        "keyframe hevc",
        "unsupported av1",
        "keyframe av1",
        "unsupported h263",
        "keyframe h263",
        "config of 15",
        "unsupported h263",
        "keyframe h263",
    ];
    assert_eq!(play(&mut session, &mut client), expected);
}

#[test]
fn a_config_that_cannot_be_read_ends_the_entry_points() {
    let (mut session, mut client) = publishing(Limits::default());
    client.write_video(0, CONFIG);
    client.write_video(0, b"\x17\0\0\0\0\x02\x64\0\x0a\xff\xe0\0");
    client.write_video(0, IDR);
    client.write_video(0, &[&CONFIG[..5], &[1; 70_000]].concat());
    client.write_video(0, CONFIG);
    client.write_video(0, IDR);
    let expected = [
        "config of 15".to_string(),
        format!("bad config: {}", AvccError::UnknownVersion { version: 2 }),
        "keyframe h264".into(),
        format!("bad config: {}", AvccError::TooLong { bytes: 70_000 }),
        "config of 15".into(),
        "entry point 0 of 7".into(),
    ];
    assert_eq!(play(&mut session, &mut client), expected);
}

#[test]
fn entry_points_are_counted_when_nobody_wants_them() {
    let (mut session, mut client) = publishing(Limits::default());
    session.set_keep_entry_points(false);
    client.write_video(0, CONFIG);
    client.write_video(0, IDR);
    assert_eq!(play(&mut session, &mut client), ["config of 15", "keyframe h264"]);
    session.set_keep_entry_points(true);
    client.write_video(1000, IDR);
    assert_eq!(play(&mut session, &mut client), ["entry point 1000 of 7"]);
}

/// A video message in chunks of 4096 bytes, so late that its headers carry an extended timestamp, which `repeat` has in the
/// headers of all chunks and not of the first alone.
fn late_video(body: &[u8], repeat: bool) -> Vec<u8> {
    let extended = 0x0100_0000_u32.to_be_bytes();
    let mut wire = b"\x02\0\0\0\0\0\x04\x01\0\0\0\0\0\0\x10\0".to_vec();
    wire.extend(b"\x07\xff\xff\xff");
    wire.extend(&(body.len() as u32).to_be_bytes()[1..]);
    wire.extend(b"\x09\x01\0\0\0");
    wire.extend(extended);
    for (index, chunk) in body.chunks(4096).enumerate() {
        if index > 0 {
            wire.push(0xc7);
            wire.extend(if repeat { &extended[..] } else { &[] });
        }
        wire.extend(chunk);
    }
    wire
}

#[test]
fn what_an_entry_point_lacks_is_told_while_it_is_put_together() {
    let keyframe = [IDR, &[0x55; 30_000]].concat();
    let (mut session, mut client) = publishing(Limits::default());
    client.write_video(0, CONFIG);
    play(&mut session, &mut client);
    assert_eq!(session.missing_bytes(), None);
    for repeat in [true, false] {
        let wire = late_video(&keyframe, repeat);
        let mut told = Vec::new();
        let mut to_come = wire.len();
        // So small that every header is cut, and what has to be looked at to know where it ends.
        for piece in wire.chunks(3) {
            session.push(piece, |event| told.push(event)).unwrap();
            to_come -= piece.len();
            match session.missing_bytes() {
                // All but the headers of chunks.
                Some(missing) => {
                    assert!((to_come.saturating_sub(40)..=to_come).contains(&missing), "{missing} of {to_come}")
                }
                // Before its head is here nobody knows that it is to be kept.
                None => assert!(to_come == 0 || to_come + 60 > wire.len(), "{to_come}"),
            }
        }
        assert_eq!(words(&told), ["entry point 16777216 of 30007"], "{repeat}");
    }

    // Whether one that nobody wants is whole is nobody's concern.
    session.set_keep_entry_points(false);
    session.push(&late_video(&keyframe, true)[..20_000], |_| {}).unwrap();
    assert_eq!(session.missing_bytes(), None);
}

#[test]
fn pictures_share_the_config_they_were_sent_under() {
    let (mut session, mut client) = publishing(Limits::default());
    for body in [CONFIG, IDR, CONFIG, IDR] {
        client.write_video(0, body);
    }
    let mut units = Vec::new();
    carry_over(&mut client, &mut session, |event| {
        if let Event::EntryPoint(unit) = event {
            units.push(unit);
        }
    });
    assert!(std::sync::Arc::ptr_eq(&units[0].config, &units[1].config));
    assert_eq!(units[0].config.codec, Codec::H264);
    assert_eq!(units[0].config.record, &CONFIG[5..]);
    assert_eq!(units[0].data, &IDR[5..]);
}

#[test]
fn pings_are_answered_and_windows_acknowledged() {
    let (mut session, _) = publishing(Limits::default());
    let mut writer = ChunkWriter::new();
    let mut out = BytesMut::new();
    writer.write_control(&mut out, MessageType::UserControl, &[0, 6, 1, 2, 3, 4]);
    writer.write_control(&mut out, MessageType::WindowAckSize, &1000_u32.to_be_bytes());
    // A reader of its own for each side: the session has sent its chunk size long ago.
    session.push(&out, |_| {}).unwrap();
    let pong = b"\0\x07\x01\x02\x03\x04";
    assert!(session.output().windows(pong.len()).any(|window| window == pong));
    session.consume_output(session.output().len());

    let before = session.received_bytes();
    let mut acknowledged = Vec::new();
    for _ in 0..30 {
        out.clear();
        writer.write(&mut out, 4, MessageType::Audio, 0, 1, &[0xaf; 100]);
        session.push(&out, |_| {}).unwrap();
        if let Some(value) = session.output().last_chunk::<4>() {
            acknowledged.push((u32::from_be_bytes(*value), session.received_bytes()));
        }
        session.consume_output(session.output().len());
    }
    assert!((3000..4000).contains(&(session.received_bytes() - before)));
    assert_eq!(acknowledged.len(), 3, "{acknowledged:?}");
    for (value, received) in acknowledged {
        assert_eq!(u64::from(value), received);
    }
}

#[test]
fn nonsense_ends_the_session_with_a_status_that_says_why() {
    use Error::*;
    type Step = fn(&mut Peer) -> Result<(), Error>;
    let cases: [(&str, Step, Error); 4] = [
        (
            "unexpected command second connect",
            |peer| peer.command(0, "connect", 2.0, &[connect_object()]),
            UnexpectedCommand { name: "second connect" },
        ),
        (
            "aggregate messages are not accepted",
            |peer| peer.send(MessageType::Aggregate, 1, &[0; 20]),
            AggregateMessage,
        ),
        (
            "command message does not begin with a name and a number",
            |peer| peer.send(MessageType::CommandAmf0, 0, b"\x05"),
            NotACommand,
        ),
        (
            "command cannot be read: AMF3 value at byte 0, although AMF0 was agreed",
            |peer| peer.send(MessageType::CommandAmf0, 0, b"\x11\x01"),
            Command(amf0::Amf0Error::Amf3 { offset: 0 }),
        ),
    ];
    for (said, step, expected) in cases {
        let mut peer = Peer::connected();
        assert_eq!(step(&mut peer), Err(expected), "{said}");
        assert_eq!(peer.session.phase(), Phase::Ended, "{said}");
        let commands = peer.commands();
        let description = commands[0].arguments[1].get("description").and_then(Value::as_str);
        assert_eq!(description, Some(said));
    }
}

#[test]
fn before_connect_nothing_can_be_asked() {
    let mut peer = Peer::new();
    peer.command(0, "createStream", 1.0, &[Value::Null]).unwrap();
    assert!(peer.answers().is_empty());
    let error = peer.command(1, "publish", 2.0, &publish_arguments("name"));
    assert_eq!(error, Err(Error::UnexpectedCommand { name: "publish before connect" }));
    assert!(peer.session.output().is_empty(), "nobody would understand a status");

    for property in ["app", "tcUrl"] {
        let Value::Object(mut members) = connect_object() else { panic!("connect_object makes an object") };
        members.retain(|(name, _)| name != property);
        let mut peer = Peer::new();
        let error = peer.command(0, "connect", 1.0, &[Value::Object(members)]);
        assert_eq!(error, Err(Error::IncompleteConnect { property }));
    }
}

#[test]
fn codecs_have_names_that_people_know() {
    assert_eq!(VideoCodec::Known(Codec::Hevc).to_string(), "hevc");
    assert_eq!(VideoCodec::FourCc(*b"vvc1").to_string(), "FourCC vvc1");
    assert_eq!(AudioCodec::Legacy(10).to_string(), "aac");
    assert_eq!(AudioCodec::FourCc([0, b'a', 0xff, b'"']).to_string(), "FourCC \\x00a\\xff\\\"");
}

#[test]
fn a_peer_that_asks_for_an_acknowledgement_of_each_byte_and_reads_none_is_cut_off() {
    let mut peer = Peer::connected();
    peer.send(MessageType::WindowAckSize, 0, &1_u32.to_be_bytes()).unwrap();
    let limit = Limits::default().output_bytes_max;
    // No message ends in these pushes, so nothing but the acknowledgements can be what is counted.
    let mut message = BytesMut::new();
    peer.writer.write(&mut message, 6, MessageType::Video, 0, 1, &vec![0; 100 * limit]);
    let outcome = message.iter().try_for_each(|byte| peer.session.push(&[*byte], |_| {}));
    assert!(matches!(outcome, Err(Error::Exceeded { bound: Bound::OutputBytes, .. })), "{outcome:?}");
    assert!(peer.session.output().len() < limit + 1024);
}
