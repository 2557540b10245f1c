//! Fuzz targets as plain functions: hostile bytes in, panic only if one of our own promises is broken.

use alloc::vec::Vec;
use core::str;

use crate::{
    action::{Action, Request},
    envelope::{self, Call, HttpRequest},
    error::ApiError,
    params::{Params, form},
    time::UnixSecs,
};

/// A time at which the requests of the corpus are good.
const NOW: UnixSecs = UnixSecs(1_735_689_600);

/// A request as text: `METHOD /?query`, headers, an empty line, the body. Whoever wrote it does not know our key.
pub fn call(data: &[u8]) {
    let head_len = data.windows(2).position(|pair| pair == b"\n\n").unwrap_or(data.len());
    let (Ok(head), body) = (str::from_utf8(&data[..head_len]), data.get(head_len + 2..).unwrap_or_default()) else {
        return;
    };
    let mut lines = head.lines();
    let mut request_line = lines.next().unwrap_or_default().split(' ');
    let method = request_line.next().unwrap_or_default();
    let query = request_line.next().unwrap_or_default().trim_start_matches("/?");
    let headers: Vec<_> = lines.filter_map(|line| line.split_once(": ")).collect();
    match Call::parse(&HttpRequest { method, query, headers: &headers, body }) {
        Ok(Call { action, params, unverified }) => {
            let made = unverified.made();
            let refused = unverified.verify("a key that nobody knows", made).expect_err("a signature without the key");
            writes(&refused);
            request(action, params);
        }
        Err(error) => writes(&error),
    }
}

/// Parameters as JSON, or as a form if the first byte is odd; the rest of that byte chooses the action.
pub fn params(data: &[u8]) {
    let Some((&seed, data)) = data.split_first() else { return };
    let action = Action::ALL[usize::from(seed >> 1) % Action::ALL.len()];
    let params = if seed & 1 == 0 {
        Params::from_json(data)
    } else {
        let Ok(text) = str::from_utf8(data) else { return };
        form::pairs(text).and_then(Params::from_pairs)
    };
    match params {
        Ok(params) => request(action, params),
        Err(error) => writes(&error),
    }
}

fn request(action: Action, mut params: Params) {
    match Request::parse(action, &mut params, NOW) {
        Ok(request) => assert_eq!(request.action(), action),
        Err(error) => {
            assert!(action.documents(error.code), "{action} {error}");
            writes(&error);
        }
    }
}

/// Whatever it was about, an error is one JSON object of bounded size.
fn writes(error: &ApiError) {
    let body = envelope::failure(error, "request-id");
    assert!(body.len() < 1024);
    let read: serde_json::Value = serde_json::from_slice(&body).expect("what we wrote must parse");
    assert_eq!(read["Response"]["Error"]["Code"], error.code.as_str());
}
