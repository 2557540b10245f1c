//! Real parts for tests: what stands around Framehook when it runs, under a test's control.
//!
//! It talks to the server as customers do, over sockets and files, and never depends on `framehook-server`. Everything
//! blocks, on threads of its own where needed, so that a test reads from top to bottom; everything that waits has a
//! deadline and, when that passes, says what it saw instead. Whatever is started ends when its handle is dropped.
//!
//! | Part | What it is |
//! |---|---|
//! | [`clip`] | H.264 clips of any shape, made by ffmpeg when first needed; every frame carries its number |
//! | [`encoder`] | ffmpeg and GStreamer as publishers |
//! | [`publisher`] | a publisher of our own that stops, stalls and breaks off when told, and logs its keyframes |
//! | [`load`] | thousands of publishers in one process, and how they fared; the program `rtmp-load` |
//! | [`server`] | the executable `framehook serve` on a data directory of its own |
//! | [`receiver`] | an HTTP receiver of callbacks that records everything and misbehaves on demand |
//! | [`flooder`] | receivers behind TLS that send more than an answer, or less, for as long as somebody listens |
//! | [`object_server`] | servers of S3 and COS in which the vendors' own code judges signatures |
//! | [`proxy`] | a TCP line that can stall, slow down and break |
//! | [`jpeg`], [`picture`] | stored pictures, decoded and compared |
//! | [`tls`] | a certificate authority, and a client that believes only it |
//! | [`failing_sync`] | a disk whose syncs fail when told |
//! | [`disk`] | a disk whose power fails: what is left of files by then, however little was synced |
//! | [`flv`], [`http`], [`http2`], [`metrics`] | the formats between them, as much as tests need |
//! | [`dice`] | random numbers that a printed seed repeats |
//! | [`process`], [`wait`] | child processes that never outlive a test; waiting without sleeping |

#![expect(clippy::disallowed_methods, reason = "starts programs, measures what they take, and waits for them")]

pub mod clip;
pub mod dice;
pub mod disk;
pub mod encoder;
pub mod failing_sync;
pub mod flooder;
pub mod flv;
pub mod http;
pub mod http2;
pub mod image;
pub mod jpeg;
mod listener;
pub mod load;
pub mod metrics;
pub mod object_server;
pub mod picture;
mod preload;
pub mod process;
pub mod proxy;
pub mod publisher;
pub mod receiver;
pub mod server;
pub mod tls;
pub mod wait;
