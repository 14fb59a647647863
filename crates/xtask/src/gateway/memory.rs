//! The memory of the gateway: with many open streams, and over a long run.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use super::load::Load;
use super::servers::{Place, Server, request};
use crate::run::Failure;

/// How many streams are open at once.
const STREAMS: usize = 1_000;

/// How many calls make a long run, and in how many parts it is looked at.
const CALLS: f64 = 200_000.0;
const PARTS: usize = 4;

/// Prints what the gateway holds, in MiB, with tables in its own memory.
pub(super) fn show(place: &Place, as_json: bool) -> Result<(), Failure> {
    let mut found = Vec::new();
    // Its tables are made for 10,000 users and addresses, whether they come or not.
    let api = streaming_api()?;
    let gateway = place.tidegate_in_memory(api, "[llm]\ntokenizer = \"never\"\n")?;
    gateway.wait_until_listening()?;
    found.push(("at the start", gateway.rss_mib()?));
    let streams = open_streams(&gateway)?;
    found.push(("with 1,000 open streams", gateway.rss_mib()?));
    drop(streams);
    let upstream = place.upstream()?;
    let gateway = place.tidegate_in_memory(upstream.port(), "[llm]\ntokenizer = \"never\"\n")?;
    gateway.wait_until_ready()?;
    let load = Load { seconds: 2, realtime: false };
    let mut calls = 0.0;
    for part in 1..=PARTS {
        while calls < CALLS * part as f64 / PARTS as f64 {
            calls += load.whole(&gateway)?.per_second * f64::from(load.seconds);
        }
        let name =
            ["after 50,000 calls", "after 100,000", "after 150,000", "after 200,000"][part - 1];
        found.push((name, gateway.rss_mib()?));
    }
    if as_json {
        let map: serde_json::Map<_, _> =
            found.iter().map(|(name, mib)| ((*name).to_owned(), serde_json::json!(mib))).collect();
        println!("{}", serde_json::Value::Object(map));
    } else {
        found.iter().for_each(|(name, mib)| println!("{name:<28} {mib:>6.1} MiB"));
    }
    Ok(())
}

impl Server {
    /// What it holds in memory now.
    fn rss_mib(&self) -> Result<f64, Failure> {
        let path = format!("/proc/{}/status", self.pid());
        let text =
            fs::read_to_string(&path).map_err(|error| Failure::new(format!("{path}: {error}")))?;
        let kib = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = kib.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok());
        kib.map(|kib| kib / 1024.0).ok_or_else(|| Failure::new(format!("{path} tells no VmRSS")))
    }

    fn wait_until_listening(&self) -> Result<(), Failure> {
        for _ in 0..1_000 {
            if TcpStream::connect(("127.0.0.1", self.port())).is_ok() {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        Err(Failure::new("the gateway does not listen"))
    }
}

/// An API whose answers begin, and never end.
fn streaming_api() -> Result<u16, Failure> {
    let failed = |error| Failure::new(format!("no API to stream from: {error}"));
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let event = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hello\"}}]}\n\n";
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
                 {:x}\r\n{event}\r\n",
                event.len()
            );
            open.push(stream);
        }
    });
    Ok(port)
}

/// Clients that have had the first event, and wait for the next.
fn open_streams(gateway: &Server) -> Result<Vec<TcpStream>, Failure> {
    let open = || -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect(("127.0.0.1", gateway.port()))?;
        stream.write_all(request(&["Accept: text/event-stream"]).as_bytes())?;
        let mut seen = Vec::new();
        let mut part = [0; 4096];
        while !seen.windows(5).any(|window| window == b"Hello") {
            match stream.read(&mut part)? {
                0 => {
                    return Err(std::io::Error::other(String::from_utf8_lossy(&seen).into_owned()));
                }
                length => seen.extend_from_slice(&part[..length]),
            }
        }
        Ok(stream)
    };
    let streams: std::io::Result<Vec<_>> = (0..STREAMS).map(|_| open()).collect();
    streams.map_err(|error| {
        Failure::new(format!(
            "not all streams open: {error}; `ulimit -n 8192` lets processes have enough"
        ))
    })
}
