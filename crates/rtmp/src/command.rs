//! Commands: a name, a transaction number and AMF0 arguments (RTMP 1.0, 7.1.1 and 7.2).

use alloc::{string::String, vec::Vec};

use bytes::BytesMut;
use framehook_media::amf0::{self, Amf0Error, Value};

use crate::Error;

/// Status codes of `onStatus` that a publisher's connection needs.
///
/// What an encoder shows of a refusal depends on the code. Seen with the session's answer to `publish`, the driver closing
/// two seconds later if the encoder has not:
///
/// | Encoder | `PUBLISH_DENIED` | `PUBLISH_BAD_NAME` | other codes |
/// |---|---|---|---|
/// | ffmpeg 5.1 | `Server error: DESCRIPTION`, exit code 1 | the same | the same |
/// | OBS 29 | log: `CODE (DESCRIPTION)`; dialog: a fixed text about the stream key | the same | the code alone, after 30 s; by its source `FAILED` is as in the first column |
/// | GStreamer 1.22 `rtmp2sink` | error message `Not authorized to connect: publish denied: { … DESCRIPTION }` | `Failed to connect: publish denied; stream already exists: { … }` | `Failed to connect: 'publish' cmd failed: { … }` |
/// | GStreamer 1.22 `rtmpsink` | nothing, waits; with `FAILED` behind it: `Could not open resource for writing` | the same | the same |
///
/// So a refusal is `PUBLISH_DENIED` with the reason in the description, and the session sends `FAILED` behind it. If the
/// driver closes while input is unread, the reset may overtake both: it should let the encoder close first.
pub mod status {
    pub const CONNECT_SUCCESS: &str = "NetConnection.Connect.Success";
    pub const PUBLISH_START: &str = "NetStream.Publish.Start";
    pub const UNPUBLISH_SUCCESS: &str = "NetStream.Unpublish.Success";
    /// The publish is refused: unknown domain, wrong key, bad name.
    pub const PUBLISH_DENIED: &str = "NetStream.Publish.Denied";
    /// The name is taken.
    pub const PUBLISH_BAD_NAME: &str = "NetStream.Publish.BadName";
    /// The connection ends for a reason that the description gives.
    pub const FAILED: &str = "NetStream.Failed";
    pub const PLAY_FAILED: &str = "NetStream.Play.Failed";
}

/// A command as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    pub name: String,
    /// 0 if no answer is expected.
    pub transaction_id: f64,
    /// What follows: the command object (often null) and the arguments.
    pub arguments: Vec<Value>,
}

impl Command {
    /// Parses the body of a message of type 20 or 17. The latter puts a zero in front, which no AMF0 string begins with.
    ///
    /// # Errors
    /// [`Error::Command`] if it is not AMF0, [`Error::NotACommand`] if it does not begin with a name and a number.
    pub fn parse(body: &[u8]) -> Result<Self, Error> {
        let mut values = parse_amf0(body).map_err(Error::Command)?.into_iter();
        match (values.next(), values.next()) {
            (Some(Value::String(name)), Some(Value::Number(transaction_id))) => {
                Ok(Self { name, transaction_id, arguments: values.collect() })
            }
            _ => Err(Error::NotACommand),
        }
    }

    /// The argument behind the command object, if it is a string.
    pub fn text(&self) -> Option<&str> {
        self.arguments.get(1)?.as_str()
    }

    /// The argument behind the command object, if it is a number.
    pub fn number(&self) -> Option<f64> {
        self.arguments.get(1)?.as_number()
    }
}

/// The values of a command or data message, whose AMF3 form is AMF0 behind one zero byte.
pub(crate) fn parse_amf0(body: &[u8]) -> Result<Vec<Value>, Amf0Error> {
    amf0::parse_all(body.strip_prefix(&[0]).unwrap_or(body))
}

/// A command's body.
pub(crate) fn body(name: &str, transaction_id: f64, arguments: &[Value]) -> BytesMut {
    let mut body = BytesMut::new();
    amf0::write(&mut body, &Value::string(name));
    amf0::write(&mut body, &Value::Number(transaction_id));
    arguments.iter().for_each(|argument| amf0::write(&mut body, argument));
    body
}

/// The information object of `onStatus` and of answers.
pub(crate) fn information(level: &str, code: &str, description: &str) -> Value {
    Value::object([
        ("level", Value::string(level)),
        ("code", Value::string(code)),
        ("description", Value::string(description)),
    ])
}
