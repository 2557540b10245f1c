//! Where the sender must not go.

use tokio::net::TcpListener;

use super::*;
use crate::notify::own_addresses::OwnAddresses;

/// Two listeners on the same port, at 127.0.0.1 and 127.0.0.2.
pub(super) async fn twins() -> (TcpListener, TcpListener) {
    for _ in 0..100 {
        let first = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = first.local_addr().expect("bound").port();
        // Someone else may have the same port at the other address.
        if let Ok(second) = TcpListener::bind(("127.0.0.2", port)).await {
            return (first, second);
        }
    }
    panic!("no port is free at both addresses");
}

async fn ok(mut connection: receiver::Recorded<tokio::net::TcpStream>) {
    respond(&mut connection, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
}

fn only(allowed: &str) -> AddressPolicy {
    AddressPolicy::new(vec![allowed.parse().expect("a block")])
}

#[tokio::test]
async fn redirect_is_an_answer_and_its_target_is_never_contacted() {
    let target = Receiver::start(|connection, _| ok(connection)).await;
    for redirect in [301, 302, 303, 307, 308] {
        let location = target.url("/stolen");
        let receiver = Receiver::start(move |mut connection, _| {
            let head = format!("HTTP/1.1 {redirect} Go\r\nlocation: {location}\r\nrefresh: 0; url={location}\r\ncontent-length: 0\r\n\r\n");
            async move {
                respond(&mut connection, &head).await;
            }
        })
        .await;
        let (client, _stage) = client();
        let report = client.attempt(&receiver_url(&receiver), &post("{}"), AMPLE).await;
        assert_eq!(status(&report), redirect);
    }
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn forbidden_literal_is_refused_without_a_connection() {
    let receiver = Receiver::start(|connection, _| ok(connection)).await;
    let port = receiver.address().port();
    let (client, _stage) = client_with(Resolver::new(AddressPolicy::default()), Limits::default());
    for host in ["127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "[::ffff:127.0.0.1]", "0"] {
        let report = client.attempt(&endpoint(format!("http://{host}:{port}/")), &post("{}"), AMPLE).await;
        assert_eq!(error_name(&report), "address_forbidden", "{host}");
        assert_eq!(report.remote, None);
    }
    assert_eq!(receiver.connections(), 0);
}

/// Whatever addresses the machine has that runs this, besides loopback; where there are none, only 127.0.0.1 is tried.
#[tokio::test]
async fn this_machine_is_not_called_by_any_of_its_addresses() {
    let of_interfaces = OwnAddresses::default().now();
    // One that is link-local cannot be written in a URL together with its interface.
    let is_link_local = |address: &IpAddr| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
    let own =
        of_interfaces.iter().filter(|address| !is_link_local(address)).map(|&address| (address, "this machine's own"));
    for (address, named) in own.chain([(IpAddr::from([127, 0, 0, 1]), "loopback")]) {
        let listener = TcpListener::bind((address, 0)).await.expect("our own address");
        let receiver = Receiver::on(listener, |connection, _| ok(connection));
        let url = endpoint(receiver.url("/"));

        let (client, _stage) = client_with(Resolver::new(AddressPolicy::default()), Limits::default());
        let refused = client.attempt(&url, &post("{}"), AMPLE).await.outcome;
        assert!(matches!(refused, Err(AttemptError::AddressForbidden { class, .. }) if class == named), "{refused:?}");
        assert_eq!(receiver.connections(), 0);

        let (client, _stage) = client_with(Resolver::new(only(&address.to_string())), Limits::default());
        assert_eq!(status(&client.attempt(&url, &post("{}"), AMPLE).await), 200);
    }
}

#[tokio::test]
async fn mixed_answer_is_refused_whole() {
    let (allowed, forbidden) = twins().await;
    let url = endpoint(format!("http://mixed.example:{}/", allowed.local_addr().expect("bound").port()));
    let allowed = Receiver::on(allowed, |connection, _| ok(connection));
    let forbidden = Receiver::on(forbidden, |connection, _| ok(connection));
    let names = ScriptedNames::new(&["mixed.example"], &[&["127.0.0.1", "127.0.0.2"], &["127.0.0.2", "127.0.0.1"]]);
    let (client, _stage) = client_with(Resolver::scripted(only("127.0.0.1"), names), Limits::default());
    for _ in 0..2 {
        let report = client.attempt(&url, &post("{}"), AMPLE).await;
        assert_eq!(error_name(&report), "address_forbidden");
    }
    assert_eq!((allowed.connections(), forbidden.connections()), (0, 0));
}

/// A name server that answers well when asked first and badly from then on gains nothing: each connection asks once, and
/// goes where that answer said.
#[tokio::test]
async fn rebinding_between_check_and_connect_is_impossible() {
    let (allowed, forbidden) = twins().await;
    let url = endpoint(format!("http://rebind.example:{}/", allowed.local_addr().expect("bound").port()));
    let allowed = Receiver::on(allowed, |connection, _| ok(connection));
    let forbidden = Receiver::on(forbidden, |connection, _| ok(connection));
    let names = ScriptedNames::new(&["rebind.example"], &[&["127.0.0.1"], &["127.0.0.2"]]);
    let (client, _stage) = client_with(Resolver::scripted(only("127.0.0.1"), names), Limits::default());

    let report = client.attempt(&url, &post("{}"), AMPLE).await;
    assert_eq!((status(&report), report.remote), (200, Some(allowed.address())));
    assert_eq!(client.resolver.lookups(), 1);

    let report = client.attempt(&url, &post("{}"), AMPLE).await;
    assert_eq!(error_name(&report), "address_forbidden");
    assert_eq!(client.resolver.lookups(), 2);
    assert_eq!((allowed.connections(), forbidden.connections()), (1, 0));
}

#[tokio::test]
async fn next_address_is_tried_when_one_refuses() {
    let (refusing, listening) = twins().await;
    drop(refusing);
    let receiver = Receiver::on(listening, |connection, _| ok(connection));
    let url = endpoint(format!("http://two.example:{}/", receiver.address().port()));
    let names = ScriptedNames::new(&["two.example"], &[&["127.0.0.1", "127.0.0.2"]]);
    let (client, _stage) = client_with(Resolver::scripted(loopback(), names), Limits::default());
    let report = client.attempt(&url, &post("{}"), AMPLE).await;
    assert_eq!((status(&report), report.remote), (200, Some(receiver.address())));
}

#[tokio::test]
async fn unknown_name_is_a_dns_failure() {
    let (client, _stage) = client_with(Resolver::scripted(loopback(), ScriptedNames::default()), Limits::default());
    let report = client.attempt(&endpoint("http://nowhere.invalid/"), &post("{}"), AMPLE).await;
    assert_eq!((error_name(&report), report.remote), ("dns", None));
}

#[tokio::test]
async fn forbidden_addresses_never_reach_the_network_in_any_generated_form() {
    // A thousand addresses of every special IPv4 block, in six spellings each.
    let policy = AddressPolicy::default();
    let blocks = [
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
    ];
    for block in blocks {
        let (network, prefix) = block.split_once('/').expect("a prefix");
        let network: std::net::Ipv4Addr = network.parse().expect("an address");
        let hosts = 1_u32 << (32 - prefix.parse::<u32>().expect("a number"));
        for step in 0..1_000_u32 {
            let bits = network.to_bits() + (u64::from(hosts) * u64::from(step) / 1_000) as u32;
            let [a, b, c, d] = bits.to_be_bytes();
            let spellings = [
                format!("{a}.{b}.{c}.{d}"),
                format!("{bits}"),
                format!("0x{bits:x}"),
                format!("0{bits:o}"),
                format!("0x{a:x}.0{b:o}.{}", u16::from_be_bytes([c, d])),
                format!("[::ffff:{a}.{b}.{c}.{d}]"),
            ];
            for spelling in spellings {
                let endpoint = endpoint(format!("http://{spelling}/"));
                let literal: IpAddr = endpoint.origin().literal().expect("a literal").ip();
                assert!(
                    matches!(policy.verdict(literal, &[]), crate::notify::address::Verdict::Forbidden(_)),
                    "{spelling}"
                );
            }
        }
    }
}
