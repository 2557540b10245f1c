//! Why a push may not begin, why a running one is cut, and how each end is told to receivers: CSS's interruption codes
//! (267/31083), written `18/503`.

use core::fmt;

/// A code of the interruption table: the main code goes into `errcode`, the sub-code only into texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code {
    pub main: u16,
    pub sub: u16,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.main, self.sub)
    }
}

macro_rules! coded {
    (
        $(#[$type_doc:meta])*
        $type:ident: $main:literal {
            $($(#[$doc:meta])* $variant:ident = $sub:literal, $name:literal, $description:literal;)+
        }
    ) => {
        $(#[$type_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $type {
            $($(#[$doc])* $variant,)+
        }

        impl $type {
            /// Every variant, in the order of their codes.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            pub const fn code(self) -> Code {
                Code { main: $main, sub: match self { $(Self::$variant => $sub,)+ } }
            }

            /// The name used in metrics and logs; it never changes.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Plain English for the person at the encoder, who sees it as the RTMP status description.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => $description,)+ }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{} {}", self.code(), self.description())
            }
        }

        impl core::error::Error for $type {}
    };
}

coded! {
    /// Why a push may not begin. The publisher is to blame for all of them but the first.
    Refusal: 18 {
        /// The one that is ours to mend: the push could not be recorded.
        Internal = 100, "internal", "the server cannot record this push now; try again";
        BareIp = 300, "bare_ip", "this server does not take pushes by IP address; use the push domain";
        DomainUnknown = 301, "domain_unknown", "the push domain is not known here";
        DomainInvalid = 302, "domain_invalid", "the push URL has no host name of at most 45 letters, digits and - . _";
        DomainDisabled = 303, "domain_disabled", "the push domain is disabled";
        StreamForbidden = 305, "stream_forbidden", "this stream is forbidden";
        StreamName = 308, "stream_name", "the stream name must be 1 to 128 of A-Z a-z 0-9 . _ ~ ! * + = @ -";
        AppName = 309, "app_name", "the app name must be 1 to 64 of A-Z a-z 0-9 . _ ~ ! * + = @ -";
        /// Ours: CSS's table has no code for it and ends at 309.
        Param = 310, "param", "the query of the push URL must be UTF-8 of at most 4096 bytes";
        TxTimeMissing = 500, "tx_time_missing", "txTime is missing or malformed in the push URL";
        Expired = 501, "expired", "the push URL has expired";
        TxSecretMissing = 502, "tx_secret_missing", "txSecret is missing in the push URL";
        TxSecretWrong = 503, "tx_secret_wrong", "txSecret does not match the push key, stream name and txTime";
        TooManyPushes = 601, "too_many_pushes", "several publishers fight for this stream; wait ten seconds";
    }
}

coded! {
    /// Why a running push is cut by us.
    CutReason: 21 {
        Dropped = 100, "dropped", "the stream was dropped by its operator";
        Forbidden = 101, "forbidden", "the stream was forbidden by its operator";
        Displaced = 102, "displaced", "a newer push of the same stream took over";
    }
}

/// How a push came to its end: `errcode` and `errmsg` of event 0. The texts of codes 1 to 4 are CSS's legacy ones;
/// receivers match on the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PushEnd {
    /// The encoder said `FCUnpublish`. Encoders send it right before `deleteStream`, so it carries that one's code and
    /// text.
    Unpublished,
    DeleteStream,
    CloseStream,
    /// End of file: the peer closed the connection without a word.
    PeerClosed,
    /// Reset, TLS failure or any other error of the connection.
    ReadError,
    /// The process that served it ended and the publisher did not return within the grace.
    ServerStopped,
    /// RTMP that could not be parsed.
    BadRtmp,
    MessageTooBig,
    /// No whole message for the idle time: a peer that sends one message a byte at a time is as good as gone.
    Silent,
    Cut(CutReason),
    /// An AMF command that could not be parsed.
    BadAmf,
}

impl PushEnd {
    pub const ALL: &[Self] = &[
        Self::Unpublished,
        Self::DeleteStream,
        Self::CloseStream,
        Self::PeerClosed,
        Self::ReadError,
        Self::ServerStopped,
        Self::BadRtmp,
        Self::MessageTooBig,
        Self::Silent,
        Self::Cut(CutReason::Dropped),
        Self::Cut(CutReason::Forbidden),
        Self::Cut(CutReason::Displaced),
        Self::BadAmf,
    ];

    /// The main code of the interruption table.
    pub const fn errcode(self) -> u16 {
        match self {
            Self::Unpublished | Self::DeleteStream => 1,
            Self::CloseStream => 2,
            Self::PeerClosed => 3,
            Self::ReadError => 4,
            Self::ServerStopped => 5,
            Self::BadRtmp => 6,
            Self::MessageTooBig => 7,
            Self::Silent => 8,
            Self::Cut(reason) => reason.code().main,
            Self::BadAmf => 33,
        }
    }

    pub const fn errmsg(self) -> &'static str {
        match self {
            Self::Unpublished | Self::DeleteStream => "recv rtmp deleteStream",
            Self::CloseStream => "recv rtmp closeStream",
            Self::PeerClosed => "recv() return 0",
            Self::ReadError => "recv() return error",
            Self::ServerStopped => "server stopped",
            Self::BadRtmp => "bad rtmp content",
            Self::MessageTooBig => "rtmp message too big",
            Self::Silent => "no data for a long time",
            Self::Cut(reason) => reason.description(),
            Self::BadAmf => "amf error",
        }
    }

    /// The name used in metrics and logs; it never changes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unpublished => "unpublished",
            Self::DeleteStream => "delete_stream",
            Self::CloseStream => "close_stream",
            Self::PeerClosed => "peer_closed",
            Self::ReadError => "read_error",
            Self::ServerStopped => "server_stopped",
            Self::BadRtmp => "bad_rtmp",
            Self::MessageTooBig => "message_too_big",
            Self::Silent => "silent",
            Self::Cut(reason) => reason.name(),
            Self::BadAmf => "bad_amf",
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::{collections::BTreeSet, string::ToString};

    use super::*;

    #[test]
    fn refusals_show_the_code_and_the_reason() {
        let text = Refusal::TxSecretWrong.to_string();
        assert_eq!(text, "18/503 txSecret does not match the push key, stream name and txTime");
        assert_eq!(CutReason::Displaced.code().to_string(), "21/102");
    }

    #[test]
    fn codes_and_names_are_unique() {
        let codes: BTreeSet<_> = Refusal::ALL.iter().map(|refusal| refusal.code().sub).collect();
        let names: BTreeSet<_> = Refusal::ALL.iter().map(|refusal| refusal.name()).collect();
        assert_eq!((codes.len(), names.len()), (Refusal::ALL.len(), Refusal::ALL.len()));
    }

    #[test]
    fn descriptions_fit_an_rtmp_status_line() {
        for refusal in Refusal::ALL {
            assert!(refusal.description().len() <= 120 && refusal.description().is_ascii(), "{refusal:?}");
        }
    }

    #[test]
    fn every_end_has_the_code_of_the_interruption_table() {
        let cases = [
            (PushEnd::Unpublished, 1, "recv rtmp deleteStream"),
            (PushEnd::DeleteStream, 1, "recv rtmp deleteStream"),
            (PushEnd::CloseStream, 2, "recv rtmp closeStream"),
            (PushEnd::PeerClosed, 3, "recv() return 0"),
            (PushEnd::ReadError, 4, "recv() return error"),
            (PushEnd::ServerStopped, 5, "server stopped"),
            (PushEnd::BadRtmp, 6, "bad rtmp content"),
            (PushEnd::MessageTooBig, 7, "rtmp message too big"),
            (PushEnd::Silent, 8, "no data for a long time"),
            (PushEnd::Cut(CutReason::Dropped), 21, "the stream was dropped by its operator"),
            (PushEnd::Cut(CutReason::Forbidden), 21, "the stream was forbidden by its operator"),
            (PushEnd::BadAmf, 33, "amf error"),
        ];
        for (end, errcode, errmsg) in cases {
            assert_eq!((end.errcode(), end.errmsg()), (errcode, errmsg), "{end:?}");
        }
    }

    #[test]
    fn ends_have_names_of_their_own() {
        let names: BTreeSet<_> = PushEnd::ALL.iter().map(|end| end.name()).collect();
        assert_eq!(names.len(), PushEnd::ALL.len());
    }
}
