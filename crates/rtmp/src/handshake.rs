//! The handshake of a server: simple, or with a digest if the client's first message carries one.
//!
//! The digest form proves nothing (its keys are in every program that speaks it); old Flash encoders merely insist on
//! it. C1 and S1 then hide an HMAC-SHA256 of themselves at an offset that four of their bytes give; S2 answers C1's.

use alloc::{boxed::Box, vec::Vec};

use bytes::{BufMut, BytesMut};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Length of C1, S1, C2 and S2 (RTMP 1.0, 5.2.3).
pub const PACKET_BYTES: usize = 1536;
/// What S1 carries behind its two times. The caller draws it, once per connection; nothing secret depends on it.
pub const RANDOM_BYTES: usize = PACKET_BYTES - 8;

/// RTMP's version in C0 and S0.
const VERSION: u8 = 3;
const DIGEST_BYTES: usize = 32;
/// First half of the key under which the client makes its digest.
const CLIENT_KEY: &[u8] = b"Genuine Adobe Flash Player 001";
/// First half of the key under which the server makes the digest of S1.
const SERVER_KEY: &[u8] = b"Genuine Adobe Flash Media Server 001";
/// Second half of both keys; with it, S2 is signed.
const KEY_TAIL: [u8; 32] = [
    0xf0, 0xee, 0xc2, 0x4a, 0x80, 0x68, 0xbe, 0xe8, 0x2e, 0x00, 0xd0, 0xd1, 0x02, 0x9e, 0x7e, 0x57, 0x6e, 0xec, 0x5d,
    0x2d, 0x29, 0x80, 0x6f, 0xab, 0x93, 0xb8, 0xe6, 0x36, 0xcf, 0xeb, 0x31, 0xae,
];
/// The version of Flash Media Server that S1 claims. ffmpeg's player checks the digest only from 3 on.
const SERVER_VERSION: [u8; 4] = [4, 5, 0, 1];

/// Why the first bytes are not an RTMP handshake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    #[error("client speaks TLS; RTMPS has a port of its own")]
    Tls,
    #[error("client speaks HTTP")]
    Http,
    #[error("RTMP version {0} is not supported")]
    UnsupportedVersion(u8),
}

/// Where a digest lies in C1 or S1. Clients use either; the server answers in the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// The offset is given by bytes 8 to 11 and counts from byte 12.
    Zero,
    /// By bytes 772 to 775, from byte 776.
    One,
}

/// The server's half of the handshake.
#[derive(Debug)]
pub(crate) struct Handshake {
    random: Box<[u8; RANDOM_BYTES]>,
    /// C0 and C1 as far as they have come.
    received: Vec<u8>,
    c2_left: usize,
}

impl Handshake {
    pub(crate) fn new(random: &[u8; RANDOM_BYTES]) -> Self {
        Self { random: Box::new(*random), received: Vec::new(), c2_left: PACKET_BYTES }
    }

    /// Takes what belongs to the handshake from `input`; true when it is complete.
    pub(crate) fn push(&mut self, input: &mut &[u8], out: &mut BytesMut) -> Result<bool, HandshakeError> {
        let wanted = 1 + PACKET_BYTES - self.received.len();
        if wanted > 0 {
            let (bytes, rest) = input.split_at(input.len().min(wanted));
            self.received.extend_from_slice(bytes);
            *input = rest;
            let Some((&version, c1)) = self.received.split_first() else { return Ok(false) };
            check_version(version)?;
            let Ok(c1) = c1.try_into() else { return Ok(false) };
            self.answer(c1, out);
        }
        // C2 repeats S1, and many clients fill it with something else. Nothing depends on it, so it is counted only.
        let skipped = input.len().min(self.c2_left);
        self.c2_left -= skipped;
        *input = &input[skipped..];
        Ok(self.c2_left == 0)
    }

    /// Writes S0, S1 and S2.
    fn answer(&self, c1: &[u8; PACKET_BYTES], out: &mut BytesMut) {
        out.reserve(1 + 2 * PACKET_BYTES);
        out.put_u8(VERSION);
        let mut s1 = [0; PACKET_BYTES];
        s1[8..].copy_from_slice(&*self.random);
        // A client that asks for the digest form puts its version where the simple form has zeros.
        let asked = (c1[4..8] != [0; 4]).then(|| find_digest(c1, CLIENT_KEY)).flatten();
        let Some((scheme, c1_digest)) = asked else {
            out.put_slice(&s1);
            out.put_slice(c1);
            return;
        };
        s1[4..8].copy_from_slice(&SERVER_VERSION);
        imprint_digest(&mut s1, scheme, SERVER_KEY);
        out.put_slice(&s1);

        let s2_random = &self.random[..PACKET_BYTES - DIGEST_BYTES];
        let key = hmac(&[SERVER_KEY, &KEY_TAIL].concat(), &[&c1_digest]);
        out.put_slice(s2_random);
        out.put_slice(&hmac(&key, &[s2_random]));
    }
}

fn check_version(version: u8) -> Result<(), HandshakeError> {
    match version {
        VERSION => Ok(()),
        0x16 => Err(HandshakeError::Tls),
        // First letters of GET, POST, PUT, HEAD, OPTIONS, CONNECT, DELETE.
        b'G' | b'P' | b'H' | b'O' | b'C' | b'D' => Err(HandshakeError::Http),
        other => Err(HandshakeError::UnsupportedVersion(other)),
    }
}

impl Scheme {
    /// Where the digest of `packet` lies. Ends within the packet: 776 + 727 + 32 is 1,535.
    fn offset(self, packet: &[u8; PACKET_BYTES]) -> usize {
        let (at, base) = match self {
            Self::Zero => (8, 12),
            Self::One => (772, 776),
        };
        let sum: usize = packet[at..at + 4].iter().map(|&byte| usize::from(byte)).sum();
        base + sum % 728
    }
}

/// The digest in a packet, if one of the schemes finds one that is right.
pub(crate) fn find_digest(packet: &[u8; PACKET_BYTES], key: &[u8]) -> Option<(Scheme, [u8; DIGEST_BYTES])> {
    [Scheme::Zero, Scheme::One].into_iter().find_map(|scheme| {
        let offset = scheme.offset(packet);
        let digest = digest_of(packet, offset, key);
        (packet[offset..offset + DIGEST_BYTES] == digest).then_some((scheme, digest))
    })
}

/// Puts the digest where the scheme wants it.
pub(crate) fn imprint_digest(packet: &mut [u8; PACKET_BYTES], scheme: Scheme, key: &[u8]) {
    let offset = scheme.offset(packet);
    let digest = digest_of(packet, offset, key);
    packet[offset..offset + DIGEST_BYTES].copy_from_slice(&digest);
}

/// Over everything but the digest itself.
fn digest_of(packet: &[u8; PACKET_BYTES], offset: usize, key: &[u8]) -> [u8; DIGEST_BYTES] {
    hmac(key, &[&packet[..offset], &packet[offset + DIGEST_BYTES..]])
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; DIGEST_BYTES] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's packet with its digest in place.
    fn digest_packet(scheme: Scheme, key: &[u8]) -> [u8; PACKET_BYTES] {
        let mut packet = core::array::from_fn(|index| (index * 7 % 251) as u8);
        packet[4..8].copy_from_slice(&[9, 0, 124, 2]);
        imprint_digest(&mut packet, scheme, key);
        packet
    }

    fn answered(c1: &[u8; PACKET_BYTES]) -> (Vec<u8>, bool) {
        let mut handshake = Handshake::new(&[0x5a; RANDOM_BYTES]);
        let mut out = BytesMut::new();
        let input = [&[3], &c1[..], &[0; PACKET_BYTES], b"next"].concat();
        let mut rest = &input[..];
        let complete = handshake.push(&mut rest, &mut out).unwrap();
        assert_eq!(rest, b"next");
        (out.to_vec(), complete)
    }

    #[test]
    fn simple_form_repeats_the_client() {
        let mut c1 = [7; PACKET_BYTES];
        c1[4..8].fill(0);
        let (out, complete) = answered(&c1);
        assert!(complete);
        assert_eq!(out.len(), 1 + 2 * PACKET_BYTES);
        assert_eq!(out[0], 3);
        assert_eq!(out[1..9], [0; 8], "time and zero");
        assert_eq!(out[9..=PACKET_BYTES], [0x5a; RANDOM_BYTES]);
        assert_eq!(out[1 + PACKET_BYTES..], c1);
    }

    #[test]
    fn digest_form_answers_in_the_scheme_of_the_client() {
        for scheme in [Scheme::Zero, Scheme::One] {
            let c1 = digest_packet(scheme, CLIENT_KEY);
            let (_, c1_digest) = find_digest(&c1, CLIENT_KEY).unwrap();
            let (out, _) = answered(&c1);
            let s1 = out[1..=PACKET_BYTES].try_into().unwrap();
            assert_eq!(find_digest(s1, SERVER_KEY).map(|(found, _)| found), Some(scheme));
            let (signed, signature) = out[1 + PACKET_BYTES..].split_at(PACKET_BYTES - DIGEST_BYTES);
            let key = hmac(&[SERVER_KEY, &KEY_TAIL].concat(), &[&c1_digest]);
            assert_eq!(signature, hmac(&key, &[signed]));
        }
    }

    #[test]
    fn a_version_without_a_digest_gets_the_simple_form() {
        let mut c1 = digest_packet(Scheme::One, CLIENT_KEY);
        c1[1000] ^= 1;
        assert_eq!(answered(&c1).0[1 + PACKET_BYTES..], c1);
        let other_key = digest_packet(Scheme::One, SERVER_KEY);
        assert_eq!(answered(&other_key).0[1 + PACKET_BYTES..], other_key);
    }

    #[test]
    fn digest_lies_where_four_bytes_say_and_ends_within_the_packet() {
        for (scheme, at, base) in [(Scheme::Zero, 8, 12), (Scheme::One, 772, 776)] {
            for (bytes, offset) in [([1, 2, 3, 4], 10), ([255, 255, 217, 0], 727), ([255, 255, 218, 0], 0)] {
                let mut packet = [0; PACKET_BYTES];
                packet[at..at + 4].copy_from_slice(&bytes);
                assert_eq!(scheme.offset(&packet), base + offset);
                imprint_digest(&mut packet, scheme, CLIENT_KEY);
            }
        }
    }

    #[test]
    fn reads_the_same_byte_by_byte() {
        let c1 = digest_packet(Scheme::Zero, CLIENT_KEY);
        let mut handshake = Handshake::new(&[0x5a; RANDOM_BYTES]);
        let mut out = BytesMut::new();
        let input = [&[3], &c1[..], &[0; PACKET_BYTES]].concat();
        let complete = input.iter().map(|byte| handshake.push(&mut core::slice::from_ref(byte), &mut out).unwrap());
        let first_complete = complete.enumerate().find_map(|(index, complete)| complete.then_some(index));
        assert_eq!(first_complete, Some(2 * PACKET_BYTES));
        assert_eq!(out, answered(&c1).0);
    }

    #[test]
    fn names_what_else_a_client_speaks() {
        use HandshakeError::*;
        for (first, expected) in [(6, UnsupportedVersion(6)), (b'G', Http), (0x16, Tls), (0, UnsupportedVersion(0))] {
            let mut handshake = Handshake::new(&[0; RANDOM_BYTES]);
            assert_eq!(handshake.push(&mut &[first][..], &mut BytesMut::new()), Err(expected));
        }
    }
}
