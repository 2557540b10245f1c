//! Who is to blame for a failure. It decides the log level and the kind of answer an API gives.

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A publisher, a receiver or an API client did something wrong: `info`, and a 4xx where there is one to give.
    Peer,
    /// Something we rely on failed (object store, resolver, disk): `warn`, and worth another try later.
    Dependency,
    /// Our own defect: `error`, a person should act.
    Ours,
}

impl Fault {
    /// The name used in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Dependency => "dependency",
            Self::Ours => "ours",
        }
    }
}
