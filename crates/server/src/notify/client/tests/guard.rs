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

/// Every way to write `address` as one to four numbers, each in base ten, sixteen or eight.
fn numbers(address: std::net::Ipv4Addr) -> Vec<String> {
    let of = |octets_before: usize| {
        let rest = address.to_bits() & (u32::MAX >> (8 * octets_before));
        let before = address.octets()[..octets_before].iter().map(|&octet| u32::from(octet)).collect::<Vec<_>>();
        before.into_iter().chain([rest]).fold(vec![String::new()], |written, number| {
            let bases = [format!("{number}"), format!("{number:#x}"), format!("0{number:o}")];
            written.iter().flat_map(|start| bases.iter().map(move |number| format!("{start}{number}."))).collect()
        })
    };
    (0..4).flat_map(of).map(|written| written.trim_end_matches('.').to_owned()).collect()
}

/// 127.0.0.1 itself, and 0.0.0.0, which Linux connects to it: unguarded, all of these get to the listener, and so they do
/// where both are allowed.
#[tokio::test]
async fn no_spelling_of_loopback_reaches_a_listener_there() {
    let receiver = Receiver::start(|connection, _| ok(connection)).await;
    let port = receiver.address().port();
    let plain = ["127.0.0.1", "0.0.0.0"].map(|text| text.parse::<std::net::Ipv4Addr>().expect("an address"));
    let hosts: Vec<String> = plain
        .into_iter()
        .flat_map(|v4| numbers(v4).into_iter().chain([format!("[{}]", v4.to_ipv6_mapped())]))
        .collect();
    assert_eq!(hosts.len(), 2 * (3 + 9 + 27 + 81 + 1));
    let urls = hosts.iter().map(|host| endpoint(format!("http://{host}:{port}/"))).collect::<Vec<_>>();

    let (client, _stage) = client_with(Resolver::new(AddressPolicy::default()), Limits::default());
    for (url, host) in urls.iter().zip(&hosts) {
        let report = client.attempt(url, &post("{}"), AMPLE).await;
        assert_eq!((error_name(&report), report.remote), ("address_forbidden", None), "{host}");
    }
    assert_eq!(receiver.connections(), 0);

    let allowing = ["127.0.0.0/8", "0.0.0.0/8"].map(|block| block.parse().expect("a block"));
    let (client, _stage) = client_with(Resolver::new(AddressPolicy::new(allowing.to_vec())), Limits::default());
    for url in &urls {
        assert_eq!(status(&client.attempt(url, &post("{}"), AMPLE).await), 200);
    }
    assert_eq!(receiver.connections(), urls.len());
}
