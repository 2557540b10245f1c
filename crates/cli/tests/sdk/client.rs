//! The vendor's SDKs and command-line tool, each in a program of its own.

#![allow(dead_code, reason = "each suite uses its part of this")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use framehook_testkit::server::Server;
use serde_json::{Value, json};

use crate::common::target;

/// A program of a customer's: it keeps one SDK client and carries out what it is told.
pub(crate) struct Sdk {
    program: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// What every order says unless a test changes it.
    pub(crate) order: Value,
}

/// An error of the API as the SDK raises it.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) code: String,
    message: String,
}

/// What of the vendor's is used.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Python,
    Node,
    /// `tccli`, which speaks HTTPS only.
    CommandLine,
}

impl Kind {
    pub(crate) const SDKS: [Self; 2] = [Self::Python, Self::Node];
    pub(crate) const ALL: [Self; 3] = [Self::Python, Self::Node, Self::CommandLine];

    /// The program that takes orders.
    fn command(self, authority: &Path) -> Command {
        let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk");
        let installed = target().join("sdk");
        assert!(installed.join("pinned").exists(), "the vendor's SDKs are not installed: run ./dev sdk");
        let (program, arguments) = match self {
            Self::Python => (installed.join("bin/python"), vec![ours.join("call.py")]),
            Self::Node => ("node".into(), vec![ours.join("call.mjs"), installed.join("package.json")]),
            Self::CommandLine => {
                (installed.join("tccli/bin/python"), vec![ours.join("tccli.py"), authority.to_owned()])
            }
        };
        let mut command = Command::new(program);
        command.args(arguments);
        command
    }
}

impl Sdk {
    /// The SDK for Python, which can do everything that the others can.
    pub(crate) fn start(server: &Server) -> Self {
        Self::start_as(Kind::Python, server, Path::new(""))
    }

    /// `authority` is the certificate of who has signed the server's, where HTTPS is spoken.
    pub(crate) fn start_as(kind: Kind, server: &Server, authority: &Path) -> Self {
        let mut program = kind.command(authority).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let credentials = server.credentials().unwrap();
        let endpoint = match kind {
            Kind::Python | Kind::Node => server.http_address(),
            Kind::CommandLine => server.addresses().https.expect("a server with a certificate"),
        };
        let order = json!({
            "endpoint": endpoint.to_string(),
            "secret_id": credentials.secret_id,
            "secret_key": credentials.secret_key,
            "method": "POST",
            "sign": "TC3-HMAC-SHA256",
            "now": null,
            "nonce": null,
        });
        let (orders, answers) = (program.stdin.take(), BufReader::new(program.stdout.take().unwrap()));
        Self { program, orders, answers, order }
    }

    pub(crate) fn with(&mut self, name: &str, value: impl Into<Value>) -> &mut Self {
        self.order[name] = value.into();
        self
    }

    pub(crate) fn try_call(&mut self, action: &str, params: &Value) -> Result<Value, Refused> {
        let mut order = self.order.clone();
        order["action"] = action.into();
        order["params"] = params.clone();
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let mut answer: Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{action}: {error}: {line:?}"));
        if answer["response"].is_object() {
            assert!(is_uuid(&answer["response"]["RequestId"]), "{action}: {answer}");
            return Ok(answer["response"].take());
        }
        assert!(is_uuid(&answer["request_id"]), "{action}: {answer}");
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        Err(Refused { code: text("code"), message: text("message") })
    }

    pub(crate) fn call(&mut self, action: &str, params: Value) -> Value {
        self.try_call(action, &params).unwrap_or_else(|refused| panic!("{action} {params}: {refused:?}"))
    }

    /// The code of an error.
    pub(crate) fn code(&mut self, action: &str, params: Value) -> String {
        match self.try_call(action, &params) {
            Ok(response) => panic!("{action} {params} was carried out: {response}"),
            Err(Refused { code, message }) => {
                assert!(!message.is_empty(), "{action}: {code} without a word");
                code
            }
        }
    }
}

impl Drop for Sdk {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.program.wait();
    }
}

pub(crate) fn is_uuid(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.len() == 36 && text.split('-').count() == 5)
}
