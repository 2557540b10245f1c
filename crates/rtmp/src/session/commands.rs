use alloc::boxed::Box;

use framehook_media::amf0::Value;

use super::{CHUNK_SIZE, Connect, Phase, Session, WINDOW_BYTES};
use crate::{
    Error, Event, PublishRequest, UnpublishedBy,
    chunk::COMMAND_CHUNK_STREAM,
    command::{self, Command, status},
    message::MessageType,
};

/// What encoders ask for, and what they are told.
impl Session {
    pub(super) fn on_command(
        &mut self,
        stream_id: u32,
        command: &Command,
        sink: &mut impl FnMut(Event),
    ) -> Result<(), Error> {
        if self.connect.is_none() {
            return match command.name.as_str() {
                "connect" => self.on_connect(command),
                "publish" => Err(Error::UnexpectedCommand { name: "publish before connect" }),
                "play" => Err(Error::UnexpectedCommand { name: "play before connect" }),
                _ => Ok(()),
            };
        }
        match command.name.as_str() {
            "connect" => return Err(Error::UnexpectedCommand { name: "second connect" }),
            "releaseStream" | "_checkbw" => self.send_result(command, &[Value::Null, Value::Undefined]),
            "FCPublish" => {
                let name = command.text().unwrap_or_default();
                let info = command::information("status", status::PUBLISH_START, name);
                // Flash Media Live Encoder waits for this call before it publishes; others pass over it.
                self.send_command(0, "onFCPublish", 0.0, &[Value::Null, info]);
                self.send_result(command, &[Value::Null, Value::Undefined]);
            }
            "createStream" => {
                self.streams_created = self.streams_created.wrapping_add(1).max(1);
                self.send_result(command, &[Value::Null, Value::Number(self.streams_created.into())]);
            }
            "getStreamLength" => self.send_result(command, &[Value::Null, Value::Number(0.0)]),
            "publish" => self.on_publish(stream_id, command, sink),
            "FCUnpublish" => {
                let name = command.text().unwrap_or_default();
                let info = command::information("status", status::UNPUBLISH_SUCCESS, name);
                self.send_command(0, "onFCUnpublish", 0.0, &[Value::Null, info]);
                self.send_result(command, &[Value::Null, Value::Undefined]);
                self.unpublish(UnpublishedBy::FcUnpublish, sink);
            }
            // A number that is missing or not one's own stream would be odd, and odd encoders exist: only another
            // stream of this connection is left alone.
            "deleteStream" if command.number().is_none_or(|id| id == f64::from(self.publish_stream_id)) => {
                self.unpublish(UnpublishedBy::DeleteStream, sink);
            }
            "closeStream" if stream_id == self.publish_stream_id => self.unpublish(UnpublishedBy::CloseStream, sink),
            "play" | "play2" => {
                self.send_status(stream_id, "error", status::PLAY_FAILED, "this server takes streams and plays none");
            }
            // As other servers do: encoders survive silence, and some give up on an error.
            _ => {}
        }
        Ok(())
    }

    fn on_connect(&mut self, command: &Command) -> Result<(), Error> {
        let text = |name| command.arguments.first().and_then(|object| object.get(name)).and_then(Value::as_str);
        let tc_url = text("tcUrl").ok_or(Error::IncompleteConnect { property: "tcUrl" })?;
        let app = text("app").ok_or(Error::IncompleteConnect { property: "app" })?;
        self.connect = Some(Box::new(Connect { tc_url: tc_url.into(), app: app.into() }));
        self.phase = Phase::Publish;

        let out = &mut self.output;
        self.writer.write_control(out, MessageType::WindowAckSize, &WINDOW_BYTES.to_be_bytes());
        let [w0, w1, w2, w3] = WINDOW_BYTES.to_be_bytes();
        // Limit type 2 is "dynamic": the client keeps what it has if that is less.
        self.writer.write_control(out, MessageType::SetPeerBandwidth, &[w0, w1, w2, w3, 2]);
        self.writer.set_chunk_size(out, CHUNK_SIZE);
        let properties =
            Value::object([("fmsVer", Value::string("FMS/3,0,1,123")), ("capabilities", Value::Number(31.0))]);
        let mut info = command::information("status", status::CONNECT_SUCCESS, "connected");
        if let Value::Object(members) = &mut info {
            // AMF0, whatever was asked for: a client that may speak AMF3 then has no reason to.
            members.push(("objectEncoding".into(), Value::Number(0.0)));
        }
        self.send_result(command, &[properties, info]);
        Ok(())
    }

    fn on_publish(&mut self, stream_id: u32, command: &Command, sink: &mut impl FnMut(Event)) {
        if self.phase != Phase::Publish {
            let description = "this connection publishes already";
            self.send_status(stream_id, "error", status::PUBLISH_BAD_NAME, description);
            return;
        }
        let Some(connect) = self.connect.as_deref() else { return };
        let Connect { tc_url, app } = connect.clone();
        let stream = command.text().unwrap_or_default().into();
        self.publish_stream_id = stream_id;
        self.phase = Phase::Decision;
        sink(Event::Publish(Box::new(PublishRequest { tc_url, app, stream })));
    }

    fn unpublish(&mut self, by: UnpublishedBy, sink: &mut impl FnMut(Event)) {
        // Encoders send FCUnpublish and then deleteStream: the first one counts.
        if !matches!(self.phase, Phase::Decision | Phase::Media) {
            return;
        }
        // A publish that was accepted has earned a new allowance; one that never was could be repeated for ever.
        if self.phase == Phase::Media {
            self.unpublished_bytes = 0;
        }
        self.phase = Phase::Publish;
        self.media.reset();
        self.send_status(self.publish_stream_id, "status", status::UNPUBLISH_SUCCESS, "publish ended");
        sink(Event::Unpublish { by });
    }

    fn send_result(&mut self, command: &Command, arguments: &[Value]) {
        self.send_command(0, "_result", command.transaction_id, arguments);
    }

    pub(super) fn send_status(&mut self, stream_id: u32, level: &str, code: &str, description: &str) {
        self.send_command(stream_id, "onStatus", 0.0, &[Value::Null, command::information(level, code, description)]);
    }

    fn send_command(&mut self, stream_id: u32, name: &str, transaction_id: f64, arguments: &[Value]) {
        let body = command::body(name, transaction_id, arguments);
        let out = &mut self.output;
        self.writer.write(out, COMMAND_CHUNK_STREAM, MessageType::CommandAmf0, 0, stream_id, &body);
    }
}
