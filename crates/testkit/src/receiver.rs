//! An HTTP receiver of callbacks that records every request and misbehaves on demand.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use framehook_verify::css;
use framehook_verify::webhook::{self, WebhookSecret};

use crate::http::{self, Headers};
use crate::listener::{Accepted, Listener, Stop, lock, reset_on_close};

/// What is done with one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// This status, with the body `{"code":0}`.
    Status(u16),
    /// This status after a while.
    After(Duration, u16),
    /// This status, then an orderly end of the connection that the answer did not announce.
    StatusThenClose(u16),
    /// 302 to this URL.
    Redirect(String),
    /// No answer until the sender hangs up.
    Hang,
    /// An orderly end without an answer.
    Close,
    /// A reset without an answer.
    Reset,
    /// A reset in the middle of the answer's head.
    ResetMidAnswer,
    /// A 200 sent a byte at a time, with this pause between bytes.
    Trickle(Duration),
    /// A 200 whose body goes on until the sender hangs up.
    EndlessBody,
    /// Exactly these bytes.
    Raw(Vec<u8>),
}

/// A recorded request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Counts the receiver's requests from 0.
    pub index: usize,
    /// Counts the receiver's connections from 0.
    pub connection: u64,
    /// Counts the requests on this connection from 0: above 0 the connection was reused.
    pub index_on_connection: usize,
    pub method: String,
    pub target: String,
    pub headers: Headers,
    pub body: Vec<u8>,
    /// When the last byte of the body was read.
    pub arrived: Instant,
    pub arrived_wall: SystemTime,
    /// The status that was answered in full; `None` so far, or for good when the reply was something worse.
    pub answered: Option<u16>,
}

impl Request {
    /// # Errors
    /// When the body is not JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("body of request {}", self.index))
    }

    /// The `webhook-id` header.
    ///
    /// # Errors
    /// When there is none.
    pub fn webhook_id(&self) -> Result<&str> {
        self.headers.get("webhook-id").with_context(|| format!("request {} has no webhook-id", self.index))
    }

    /// Checks both signatures, that of the body and that of the headers, as of the moment the request arrived.
    ///
    /// # Errors
    /// Says which check failed.
    pub fn verify(&self, key: &str) -> Result<()> {
        let since_epoch = self.arrived_wall.duration_since(SystemTime::UNIX_EPOCH).context("a clock before 1970")?;
        let arrived_secs = since_epoch.as_secs().try_into().context("a clock beyond 63 bits")?;
        let report = css::report(&self.body, Some(&[key]), arrived_secs);
        ensure!(report.passed(), "request {}: {:?}", self.index, report.first_failure());
        let secret = WebhookSecret::from_callback_key(key);
        webhook::Headers::read(|name| self.headers.get(name))
            .and_then(|headers| webhook::verify([&secret], headers, &self.body, arrived_secs))
            .with_context(|| format!("request {}", self.index))?;
        Ok(())
    }

    /// `event_type` of the body; `None` when the body has none.
    pub fn event_type(&self) -> Option<u64> {
        self.json().ok()?.get("event_type")?.as_u64()
    }
}

type Script = Box<dyn Fn(&Request) -> Reply + Send + Sync>;

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    script: Option<Arc<Script>>,
    resets: usize,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// Listens on a free loopback port until dropped. Answers 200 unless told otherwise.
pub struct Receiver {
    listener: Listener,
    shared: Arc<Shared>,
}

impl Receiver {
    /// # Errors
    /// When no port can be had.
    pub fn start() -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let listener = Listener::start({
            let shared = Arc::clone(&shared);
            move |accepted| serve(accepted, &shared)
        })?;
        Ok(Self { listener, shared })
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.address
    }

    /// The URL of a path, which starts with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// Decides from now on what is done with each request, which is already recorded then.
    pub fn on_request(&self, script: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
        lock(&self.shared.state).script = Some(Arc::new(Box::new(script)));
    }

    /// Does this with every request from now on.
    pub fn reply_always(&self, reply: Reply) {
        self.on_request(move |_| reply.clone());
    }

    /// Resets the next `count` connections before a byte is read.
    pub fn reset_connections(&self, count: usize) {
        lock(&self.shared.state).resets = count;
    }

    /// All requests so far, in the order they came.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.state).requests.clone()
    }

    /// Waits for at least `count` requests in all; gives all there are.
    ///
    /// # Errors
    /// When fewer came within `patience`; the message lists them.
    pub fn wait_for(&self, count: usize, patience: Duration) -> Result<Vec<Request>> {
        self.wait_until(&format!("{count} requests"), patience, |requests| {
            (requests.len() >= count).then(|| requests.to_vec())
        })
    }

    /// Waits until `look` finds in the requests what it looks for.
    ///
    /// # Errors
    /// When it did not within `patience`; the message lists what came.
    pub fn wait_until<T>(
        &self,
        what: &str,
        patience: Duration,
        mut look: impl FnMut(&[Request]) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + patience;
        let mut state = lock(&self.shared.state);
        loop {
            if let Some(found) = look(&state.requests) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("waited {patience:?} in vain for {what}; received {}", summary(&state.requests));
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The requests on one line each, for error messages.
fn summary(requests: &[Request]) -> String {
    let line = |request: &Request| {
        let body = String::from_utf8_lossy(&request.body);
        format!("\n  {} {} answered {:?}: {body}", request.method, request.target, request.answered)
    };
    if requests.is_empty() { "nothing".to_owned() } else { requests.iter().map(line).collect() }
}

fn serve(accepted: Accepted, shared: &Shared) {
    let Accepted { number, stream, stop } = accepted;
    if take_reset(shared) {
        reset_on_close(&stream);
        return;
    }
    let mut reader = BufReader::new(&*stream);
    for index_on_connection in 0.. {
        // A request that is cut off or is no HTTP ends the connection and is not recorded.
        let Ok(Some(raw)) = http::read_request(&mut reader) else { return };
        let mut state = lock(&shared.state);
        let request = Request {
            index: state.requests.len(),
            connection: number,
            index_on_connection,
            method: raw.method,
            target: raw.target,
            headers: raw.headers,
            body: raw.body,
            arrived: Instant::now(),
            arrived_wall: SystemTime::now(),
            answered: None,
        };
        state.requests.push(request.clone());
        let script = state.script.clone();
        drop(state);
        shared.changed.notify_all();

        let reply = script.map_or(Reply::Status(200), |script| script(&request));
        let Ok(Outcome { answered, stays_open }) = perform(&reply, &stream, &stop) else { return };
        if answered.is_some() {
            lock(&shared.state).requests[request.index].answered = answered;
            shared.changed.notify_all();
        }
        if !stays_open {
            return;
        }
    }
}

fn take_reset(shared: &Shared) -> bool {
    let mut state = lock(&shared.state);
    let reset = state.resets > 0;
    state.resets = state.resets.saturating_sub(1);
    reset
}

struct Outcome {
    answered: Option<u16>,
    stays_open: bool,
}

fn perform(reply: &Reply, mut stream: &TcpStream, stop: &Stop) -> io::Result<Outcome> {
    const ENDED: Outcome = Outcome { answered: None, stays_open: false };
    let answered = |status| Outcome { answered: Some(status), stays_open: true };
    Ok(match reply {
        Reply::Status(status) => {
            stream.write_all(&answer(*status, ""))?;
            answered(*status)
        }
        Reply::After(pause, status) => {
            if !stop.pause(*pause) {
                return Ok(ENDED);
            }
            stream.write_all(&answer(*status, ""))?;
            answered(*status)
        }
        Reply::StatusThenClose(status) => {
            stream.write_all(&answer(*status, ""))?;
            Outcome { stays_open: false, ..answered(*status) }
        }
        Reply::Redirect(url) => {
            stream.write_all(&answer(302, &format!("location: {url}\r\n")))?;
            answered(302)
        }
        Reply::Hang => {
            // Ends when the sender hangs up, or with the receiver, which shuts the socket down.
            while stream.read(&mut [0; 256])? > 0 {}
            ENDED
        }
        Reply::Close => ENDED,
        Reply::Reset => {
            reset_on_close(stream);
            ENDED
        }
        Reply::ResetMidAnswer => {
            let whole = answer(200, "");
            stream.write_all(&whole[..whole.len() / 2])?;
            reset_on_close(stream);
            ENDED
        }
        Reply::Trickle(pause) => {
            for byte in answer(200, "") {
                if !stop.pause(*pause) {
                    return Ok(ENDED);
                }
                stream.write_all(&[byte])?;
            }
            answered(200)
        }
        Reply::EndlessBody => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n")?;
            // Ends with an error when the sender hangs up.
            loop {
                stream.write_all(&[b'x'; 4096])?;
            }
        }
        Reply::Raw(bytes) => {
            stream.write_all(bytes)?;
            Outcome { answered: None, stays_open: true }
        }
    })
}

fn answer(status: u16, headers: &str) -> Vec<u8> {
    let body = r#"{"code":0}"#;
    let length = body.len();
    format!("HTTP/1.1 {status} Scripted\r\n{headers}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Response;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn post(receiver: &Receiver, body: &str) -> Result<Response> {
        http::request(receiver.address(), "POST", "/hook?a=b", &[("webhook-id", "one")], body.as_bytes(), PATIENCE)
    }

    #[test]
    fn records_requests_and_answers_200() {
        let receiver = Receiver::start().unwrap();
        assert_eq!(post(&receiver, r#"{"event_type":200}"#).unwrap().status, 200);
        let requests = receiver.wait_until("the answer", PATIENCE, |all| all.first()?.answered.map(|_| all.to_vec()));
        let request = &requests.unwrap()[0];
        assert_eq!(
            (request.target.as_str(), request.event_type(), request.answered),
            ("/hook?a=b", Some(200), Some(200))
        );
        assert_eq!(request.webhook_id().unwrap(), "one");
    }

    #[test]
    fn verifies_both_signatures() {
        use framehook_domain::id::DeliveryId;
        use framehook_domain::signature;
        use framehook_domain::template::{CallbackKey, Signing};
        use framehook_domain::time::UnixMs;

        let receiver = Receiver::start().unwrap();
        let key = CallbackKey::parse("k3yForDocs2024").unwrap();
        let signing = Signing { key: Some(key.clone()), previous: None, ed25519: None };
        let now = UnixMs(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64);
        let t = css::expiry_secs(now.secs());
        let body = format!(r#"{{"sign":"{}","t":{t}}}"#, css::sign(key.expose(), t));
        let id = DeliveryId(framehook_domain::id::uuid_v7(now, [7; 10]));
        let headers: Vec<_> = signature::headers(&signing, id, now, body.as_bytes()).collect();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        for body in [body.clone(), body + " "] {
            http::request(receiver.address(), "POST", "/", &headers, body.as_bytes(), PATIENCE).unwrap();
        }
        let [good, changed] = &receiver.wait_for(2, PATIENCE).unwrap()[..] else { panic!("two requests") };
        good.verify("k3yForDocs2024").unwrap();
        assert!(good.verify("another").unwrap_err().to_string().contains("SignatureEqual"));
        // CSS's signature does not cover the body; the header's does.
        assert!(format!("{:#}", changed.verify("k3yForDocs2024").unwrap_err()).contains("webhook-signature"));
    }

    #[test]
    fn follows_its_script() {
        let receiver = Receiver::start().unwrap();
        let url = receiver.url("/other");
        receiver.on_request({
            let url = url.clone();
            move |request| match request.index {
                0 => Reply::Status(500),
                1 => Reply::Redirect(url.clone()),
                2 => Reply::Trickle(Duration::from_millis(1)),
                3 => Reply::Close,
                4 => Reply::Reset,
                _ => Reply::ResetMidAnswer,
            }
        });
        assert_eq!(post(&receiver, "{}").unwrap().status, 500);
        assert_eq!(post(&receiver, "{}").unwrap().headers.get("location"), Some(url.as_str()));
        assert_eq!(post(&receiver, "{}").unwrap().status, 200);
        for _ in 3..6 {
            assert!(post(&receiver, "{}").is_err());
        }
        // What was answered is noted after its last byte, which we have read by then.
        let answers = [Some(500), Some(302), Some(200), None, None, None];
        let noted = |all: &[Request]| all.iter().map(|request| request.answered).eq(answers).then_some(());
        receiver.wait_until("every answer to be noted", PATIENCE, noted).unwrap();
    }

    #[test]
    fn resets_connections_before_anything_is_read() {
        let receiver = Receiver::start().unwrap();
        receiver.reset_connections(1);
        assert!(post(&receiver, "{}").is_err());
        assert!(receiver.requests().is_empty());
        assert_eq!(post(&receiver, "{}").unwrap().status, 200);
    }

    #[test]
    fn numbers_requests_on_a_reused_connection() {
        let receiver = Receiver::start().unwrap();
        let mut stream = TcpStream::connect(receiver.address()).unwrap();
        for _ in 0..2 {
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        }
        let requests = receiver.wait_for(2, PATIENCE).unwrap();
        assert_eq!(requests.iter().map(|request| request.index_on_connection).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn hanging_connections_end_with_the_receiver() {
        let receiver = Receiver::start().unwrap();
        receiver.reply_always(Reply::Hang);
        let mut stream = TcpStream::connect(receiver.address()).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        receiver.wait_for(1, PATIENCE).unwrap();
        drop(receiver);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
    }

    #[test]
    fn says_what_came_when_too_little_did() {
        let receiver = Receiver::start().unwrap();
        post(&receiver, r#"{"n":1}"#).unwrap();
        let failure = receiver.wait_for(2, Duration::from_millis(20)).unwrap_err().to_string();
        assert!(failure.contains("2 requests") && failure.contains(r#"{"n":1}"#), "{failure}");
    }
}
