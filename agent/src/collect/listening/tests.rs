//! Sockets over fixtures, and of the machine the tests run on.

use serde_json::json;

use super::*;
use crate::collect::fixture;

const TCP: &str = include_str!("../../../tests/fixtures/net-tcp-debian");
const TCP6: &str = include_str!("../../../tests/fixtures/net-tcp6-debian");
const UDP: &str = include_str!("../../../tests/fixtures/net-udp-debian");
const PASSWD: &str = include_str!("../../../tests/fixtures/passwd-debian");
const PORTS: (&str, &str) = (RANGE, "32768\t60999\n");

fn told(files: &[(&str, &str)]) -> serde_json::Value {
    let (_keep, root) = fixture::host(files);
    fixture::json(&collect(&root).unwrap())
}

#[test]
fn each_place_is_told_once_with_its_user_and_the_process_where_it_can_be_seen() {
    let body = told(&[
        PORTS,
        (RESERVED, "51820,61000-61010\n"),
        ("proc/net/tcp", TCP),
        ("proc/net/tcp6", TCP6),
        ("proc/net/udp", UDP),
        ("etc/passwd", PASSWD),
        ("proc/1/comm", "systemd\n"),
        ("proc/1/fd/41", "->socket:[18342]"),
        ("proc/612/comm", "sshd\n"),
        ("proc/612/fd/0", "->/dev/null"),
        ("proc/612/fd/3", "->socket:[18342]"),
        ("proc/612/fd/4", "->socket:[18344]"),
        ("proc/612/fd/5", "->socket:[77777]"),
    ]);
    let expected = json!({
        "sockets": [
            {"protocol": "tcp", "address": "0.0.0.0", "port": 22, "user": "root", "process": "sshd"},
            {"protocol": "tcp", "address": "127.0.0.1", "port": 5432, "user": "postgres"},
            {"protocol": "tcp", "address": "::", "port": 22, "user": "root", "process": "sshd"},
            {"protocol": "tcp", "address": "::ffff:127.0.0.1", "port": 40001, "user": "991"},
            {"protocol": "udp", "address": "0.0.0.0", "port": 68, "user": "root"},
            {"protocol": "udp", "address": "0.0.0.0", "port": 51820, "user": "root"},
            {"protocol": "udp", "address": "127.0.0.53", "port": 53, "user": "991"},
        ],
        "processes_unknown": UNSEEN,
        "udp_ports_left_out": "32768-60999",
    });
    assert_eq!(body, expected);
}

#[test]
fn a_host_without_ipv6_and_without_processes_in_sight_says_why_there_are_none() {
    let body = told(&[PORTS, ("proc/net/tcp", TCP), ("proc/net/udp", UDP)]);
    assert_eq!(body["sockets"].as_array().unwrap().len(), 4);
    let reason = "/proc hides the processes of other users";
    assert_eq!(body["processes_unknown"], reason);
}

#[test]
fn more_sockets_than_have_room_are_counted() {
    let lines: Vec<String> = (1..=SOCKETS + 7)
        .map(|port| {
            format!("0: 0100007F:{port:04X} 00000000:0000 0A 0:0 00:0 0 0 0 {port} 1 0 100\n")
        })
        .collect();
    let body = told(&[
        PORTS,
        ("proc/net/tcp", &lines.concat()),
        ("proc/net/udp", ""),
    ]);
    assert_eq!(body["sockets"].as_array().unwrap().len(), SOCKETS);
    assert_eq!(body["left_out"], 7);
}

#[test]
fn without_the_range_of_clients_ports_there_is_a_reason_and_no_guess() {
    for range in ["", "32768\n", "many ports\n", "1 65536\n"] {
        let files = [(RANGE, range), ("proc/net/tcp", TCP), ("proc/net/udp", UDP)];
        let (_keep, root) = fixture::host(&files);
        assert_eq!(collect(&root), Err(format!("/{RANGE} has no two ports")));
    }
}

#[test]
fn reserved_ports_are_numbers_and_ranges_and_garbage_reserves_nothing() {
    let (_keep, root) = fixture::host(&[PORTS, (RESERVED, "40000,50000-50002,x,-,7-\n")]);
    let ports = ClientPorts::read(&root).unwrap();
    let is_of_client = [40000, 40001, 50001, 50003, 80].map(|port| ports.contains(port));
    assert_eq!(is_of_client, [false, true, false, true, false]);
}

#[test]
fn a_socket_of_this_process_is_found_on_this_machine() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let root = Root::default();
    let sockets = proc_net::tcp(&root).unwrap();
    let socket = sockets.iter().find(|socket| socket.port == port).unwrap();
    assert!(socket.address.is_loopback());
    let (processes, _) = owners::processes(&root, &[socket.inode].into());
    let own = root.find("proc/self/comm").unwrap();
    assert_eq!(processes.get(&socket.inode), Some(&own));
}
