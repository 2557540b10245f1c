//! The server side of RTMP 1.0 as a state machine, without sockets or clocks.
#![no_std]
extern crate alloc;
