//! What a publisher says and hears, without the socket it does so on.

use framehook_media::amf0;
use framehook_rtmp::handshake::RANDOM_BYTES;
use framehook_rtmp::{Client, ClientEvent, Publication};

use crate::flv::{Tag, TagKind};

use super::{PublishError, PushUrl};

/// A client that asks to publish what `url` names.
pub(super) fn client(url: &PushUrl, chunk_bytes: u32) -> Client {
    let publication = Publication {
        tc_url: url.tc_url(),
        app: url.app.clone(),
        stream: url.stream.clone(),
        flash_ver: "FMLE/3.0 (compatible; framehook-testkit)".to_owned(),
        chunk_size: chunk_bytes,
    };
    // Only the digest handshake looks at these bytes, and this client does not do that one.
    Client::new(publication, &[0x5a; RANDOM_BYTES])
}

/// Puts one tag behind what the client has to send.
pub(super) fn write(client: &mut Client, tag: &Tag, dts_ms: u32) {
    match tag.kind {
        TagKind::Video => {
            client.write_video(dts_ms, &tag.data);
        }
        TagKind::Audio => {
            client.write_audio(dts_ms, &tag.data);
        }
        TagKind::Script => {
            if let Ok([_, metadata]) = amf0::parse_all(&tag.data).as_deref() {
                client.write_metadata(metadata);
            }
        }
    }
}

/// Tells the client what the server has said.
pub(super) fn hear(client: &mut Client, bytes: &[u8]) -> Result<(), PublishError> {
    let mut refusal = None;
    client.push(bytes, |event| {
        if let ClientEvent::Refused { code, description } = event {
            refusal = Some(PublishError::Refused { code, description });
        }
    })?;
    refusal.map_or(Ok(()), Err)
}
