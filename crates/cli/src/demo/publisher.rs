//! Publishes an FLV file over RTMP in a loop, at the pace of its timestamps, as an encoder would.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use framehook_media::flv_file::{FileTag, FileTags, TagKind};
use framehook_rtmp::Client;
use framehook_rtmp::client::{ClientEvent, Publication};
use framehook_rtmp::handshake::RANDOM_BYTES;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::Instant;

/// How long the server may take to accept the publish.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// Chunks as OBS sends them.
const CHUNK_SIZE: u32 = 4096;

/// A file that can be published again and again.
pub(crate) struct Loop {
    /// Video decoder config and audio config are sent once: a server keeps them for the whole push.
    tags: Vec<FileTag>,
    duration_ms: u32,
}

impl Loop {
    /// # Errors
    /// When the bytes are no FLV file or hold no video.
    pub(crate) fn parse(file: Bytes) -> Result<Self> {
        let tags: Vec<FileTag> = FileTags::new(file)?.collect::<Result<_, _>>()?;
        let video: Vec<u32> =
            tags.iter().filter(|tag| tag.kind == TagKind::Video).map(|tag| tag.timestamp_ms).collect();
        let (Some(&last), true) = (video.last(), video.len() > 1) else { bail!("the file holds no video") };
        // The last picture lasts as long as the average one.
        let duration_ms = last + (last / (video.len() as u32 - 1)).max(1);
        Ok(Self { tags, duration_ms })
    }
}

/// Publishes `clip` as `app/stream` until the future is dropped.
///
/// # Errors
/// When the server cannot be reached, refuses, or ends the push.
pub(crate) async fn publish(server: SocketAddr, domain: &str, app: &str, stream: &str, clip: &Loop) -> Result<()> {
    let connection = TcpStream::connect(server).await.with_context(|| format!("cannot connect to {server}"))?;
    connection.set_nodelay(true)?;
    let (mut from_server, mut to_server) = connection.into_split();
    let publication = Publication {
        tc_url: format!("rtmp://{domain}/{app}"),
        app: app.to_owned(),
        stream: stream.to_owned(),
        flash_ver: concat!("framehook-demo/", env!("CARGO_PKG_VERSION")).to_owned(),
        chunk_size: CHUNK_SIZE,
    };
    // The handshake's bytes only have to be there; nothing is derived from them.
    let mut client = Client::new(publication, &[0x5a; RANDOM_BYTES]);
    send(&mut client, &mut to_server).await?;
    let opening = async {
        while !client.is_publishing() {
            receive(&mut client, &mut from_server).await?;
            send(&mut client, &mut to_server).await?;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(ANSWER_PATIENCE, opening).await.context("the server does not answer the publish")??;

    let began = Instant::now();
    for round in 0_u32.. {
        let offset_ms = round.wrapping_mul(clip.duration_ms);
        for tag in &clip.tags {
            let due = began
                + Duration::from_millis(u64::from(round) * u64::from(clip.duration_ms) + u64::from(tag.timestamp_ms));
            // What the server says meanwhile is read, or its replies would fill the line.
            loop {
                tokio::select! {
                    () = tokio::time::sleep_until(due) => break,
                    received = receive(&mut client, &mut from_server) => received?,
                }
            }
            let timestamp_ms = offset_ms.wrapping_add(tag.timestamp_ms);
            match tag.kind {
                TagKind::Video => client.write_video(timestamp_ms, &tag.body),
                TagKind::Audio => client.write_audio(timestamp_ms, &tag.body),
                TagKind::Script => true,
            };
            send(&mut client, &mut to_server).await?;
        }
    }
    Ok(())
}

async fn send(client: &mut Client, to_server: &mut OwnedWriteHalf) -> Result<()> {
    while !client.output().is_empty() {
        let count = to_server.write(client.output()).await.context("the server ended the push")?;
        client.consume_output(count);
    }
    Ok(())
}

async fn receive(client: &mut Client, from_server: &mut OwnedReadHalf) -> Result<()> {
    let mut bytes = [0; 4096];
    let count = from_server.read(&mut bytes).await.context("the connection to the server broke")?;
    if count == 0 {
        bail!("the server ended the push");
    }
    let mut refused = None;
    client.push(&bytes[..count], |event| {
        if let ClientEvent::Refused { code, description } = event {
            refused = Some(format!("{code}: {description}"));
        }
    })?;
    match refused {
        Some(why) => bail!("the server refused the push: {why}"),
        None => Ok(()),
    }
}
