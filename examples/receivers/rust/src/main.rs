//! A receiver of Framehook's callbacks, with axum.
//!
//! ```sh
//! FRAMEHOOK_CALLBACK_KEY=... cargo run -p framehook-example-receiver -- --listen 127.0.0.1:9000
//! ```
//!
//! Answers 200 only to callbacks whose two signatures are right, and prints one line for each event.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{FromRef, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use clap::Parser;
use framehook_verify::Verifier;
use framehook_verify::axum::{Rejection, Verified};
use framehook_verify::event::Event;

#[derive(Parser)]
struct Arguments {
    /// Address and port; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:9000", value_name = "ADDR")]
    listen: SocketAddr,
    /// The callback key of the template. Better in the environment: a command line can be read by every user.
    #[arg(long, env = "FRAMEHOOK_CALLBACK_KEY", hide_env_values = true)]
    key: String,
}

#[derive(Clone)]
struct App {
    verifier: Arc<Verifier>,
    recent: Arc<Mutex<Recent>>,
}

/// This is how [`Verified`] finds the verifier.
impl FromRef<App> for Arc<Verifier> {
    fn from_ref(app: &App) -> Self {
        Arc::clone(&app.verifier)
    }
}

/// The last ids that were dealt with. Keep them in your database instead, in the transaction that holds what you did: then
/// a callback that comes again after a crash is known too.
#[derive(Default)]
struct Recent {
    known: HashSet<String>,
    order: VecDeque<String>,
}

impl Recent {
    const IDS_MAX: usize = 10_000;

    fn add(&mut self, id: String) {
        self.known.insert(id.clone());
        self.order.push_back(id);
        if self.order.len() > Self::IDS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

/// Runs only for a genuine callback when `verified` is one; a refusal answers with the status that fits.
async fn receive(State(app): State<App>, verified: Result<Verified, Rejection>) -> Response {
    let callback = match verified {
        Ok(Verified(callback)) => callback,
        Err(rejection) => {
            eprintln!("refused: {rejection}");
            return rejection.into_response();
        }
    };
    // Held while the event is dealt with, so that of two that come at once one waits and then knows the other.
    let mut recent = app.recent.lock().unwrap_or_else(PoisonError::into_inner);
    if !recent.known.contains(&callback.webhook_id) {
        println!("{}", describe(&callback.event));
        recent.add(callback.webhook_id);
    }
    // CSS encourages this body; the sender looks at the status alone.
    ([(CONTENT_TYPE, "application/json")], r#"{"code":0}"#).into_response()
}

fn describe(event: &Event) -> String {
    match event {
        Event::SnapshotStored(snapshot) => {
            format!("snapshot {} {}x{} {}", snapshot.stream, snapshot.width, snapshot.height, snapshot.pic_full_url)
        }
        Event::PushBegan(began) => format!("push-began {}", began.push.stream),
        Event::PushEnded(ended) => {
            format!("push-ended {} after {} ms", ended.push.stream, ended.push_duration.as_millis())
        }
        Event::Other { event_type, .. } => format!("event-{event_type}"),
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let app = App {
        verifier: Arc::new(Verifier::new(&arguments.key).context("the callback key of the template is needed")?),
        recent: Arc::default(),
    };
    let listener = tokio::net::TcpListener::bind(arguments.listen).await.context("cannot listen")?;
    println!("listening on http://{}/", listener.local_addr()?);
    axum::serve(listener, Router::new().fallback(post(receive)).with_state(app)).await?;
    Ok(())
}
