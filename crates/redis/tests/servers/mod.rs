//! Real servers on loopback, which end with the test.
#![allow(dead_code, reason = "each test uses some")]

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// A `redis-server`, or the program that `TIDEGATE_REDIS_SERVER` names: a Valkey, or another version.
pub struct RedisServer {
    child: Child,
    pub port: u16,
    pub folder: TempDir,
    arguments: Vec<String>,
    /// Ends the server with this process: what a static holds is never dropped.
    watcher: Child,
}

/// A process that ends another one when this process is gone.
fn watch(watched: u32) -> Child {
    let script = format!("cat > /dev/null; kill -9 {watched}");
    Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap()
}

pub fn program() -> PathBuf {
    std::env::var_os("TIDEGATE_REDIS_SERVER").map_or("redis-server".into(), PathBuf::from)
}

/// A port that is free, and so is the one 10,000 above, where a cluster's nodes speak to each other.
pub fn free_port() -> u16 {
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if port < 50_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

impl RedisServer {
    pub fn start() -> Self {
        Self::with(&["--save", "", "--appendonly", "no"])
    }

    pub fn with(arguments: &[&str]) -> Self {
        Self::at(free_port(), arguments)
    }

    pub fn at(port: u16, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        let child = spawn(port, &folder, &arguments);
        let watcher = watch(child.id());
        let mut server = Self { child, port, folder, arguments, watcher };
        server.wait_until_it_answers();
        server
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A command over a connection of its own.
    pub fn ask<T: redis::FromRedisValue>(&self, line: &str) -> redis::RedisResult<T> {
        ask(&self.url(), line)
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, in its folder.
    pub fn restart(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.child = spawn(self.port, &self.folder, &self.arguments);
        let _ = self.watcher.kill();
        let _ = self.watcher.wait();
        self.watcher = watch(self.child.id());
        self.wait_until_it_answers();
    }

    fn wait_until_it_answers(&mut self) {
        let start = Instant::now();
        while !matches!(self.ask::<String>("PING").as_deref(), Ok("PONG")) {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{} ended with {status}", program().display());
            }
            assert!(start.elapsed() < Duration::from_secs(20), "no answer from port {}", self.port);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn spawn(port: u16, folder: &TempDir, arguments: &[String]) -> Child {
    let started = Command::new(program())
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--loglevel", "warning"])
        .arg("--dir")
        .arg(folder.path())
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    started.unwrap_or_else(|error| {
        panic!(
            "`{}` cannot be run ({error}); install redis-server, or name one in TIDEGATE_REDIS_SERVER",
            program().display()
        )
    })
}

pub fn ask<T: redis::FromRedisValue>(url: &str, line: &str) -> redis::RedisResult<T> {
    let client = redis::Client::open(url)?;
    let mut connection = client.get_connection_with_timeout(Duration::from_secs(1))?;
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut words = line.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    for word in words {
        command.arg(word);
    }
    command.query(&mut connection)
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.watcher.kill();
        let _ = self.watcher.wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl RedisServer {
    /// Keys that a replica has.
    pub fn replica_keys(&self) -> u64 {
        self.ask("DBSIZE").unwrap()
    }
}

/// A sentinel.
pub struct Sentinel {
    child: Child,
    port: u16,
    _config: tempfile::NamedTempFile,
}

impl Sentinel {
    pub fn start(config: tempfile::NamedTempFile, port: u16) -> Self {
        let child = Command::new(program())
            .arg(config.path())
            .arg("--sentinel")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let sentinel = Self { child, port, _config: config };
        wait_until("the sentinel answers", || ask::<String>(&sentinel.url(), "PING").is_ok());
        sentinel
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn wait_for_replica(&self) {
        wait_until("the sentinel knows the replica", || {
            let known: Vec<Vec<String>> =
                ask(&self.url(), "SENTINEL REPLICAS main").unwrap_or_default();
            let state = |known: &Vec<String>| known.join(" ").contains("master-link-status ok");
            known.len() == 1 && known.iter().all(state)
        });
    }

    pub fn wait_for_master(&self, port: u16) {
        wait_until("the replica takes over", || {
            let line = "SENTINEL GET-MASTER-ADDR-BY-NAME main";
            let address: Vec<String> = ask(&self.url(), line).unwrap_or_default();
            address.get(1).is_some_and(|known| *known == port.to_string())
        });
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(30), "in 30 s not: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
