//! The servers that are compared, each a process of its own, on ports of this machine that are free.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::run::{Failure, command, root, run, succeeds};

pub(super) const UPSTREAM: &str = "the API itself";
pub(super) const NGINX: &str = "nginx, limit_req";
pub(super) const TIDEGATE: &str = "tidegate, IP + user + budget";
pub(super) const LITELLM: &str = "LiteLLM, budget";

/// What each call asks.
pub(super) const BODY: &str =
    r#"{"model":"gpt-5-mini","max_tokens":50,"messages":[{"role":"user","content":"Say hello."}]}"#;

/// What the API answers.
const ANSWER: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-5-mini","choices":[{"index":0,"message":{"role":"assistant","content":"Hello."},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":2,"total_tokens":12}}"#;

const KEY: &str = "sk-bench";

/// Where everything is kept that the servers need.
pub(super) fn folder() -> PathBuf {
    root().join("target/bench-gateway")
}

/// A running server, killed when it is dropped.
pub(super) struct Server {
    name: &'static str,
    process: Child,
    port: u16,
}

/// Where servers are started, and how.
pub(super) struct Place {
    binary: String,
    realtime: bool,
}

impl Place {
    pub(super) fn new(binary: String, realtime: bool) -> Result<Self, Failure> {
        fs::create_dir_all(folder())
            .map_err(|error| Failure::new(format!("{}: {error}", folder().display())))?;
        Ok(Self { binary, realtime })
    }

    /// nginx with an answer in its configuration, which is faster than whatever stands before it.
    pub(super) fn upstream(&self) -> Result<Server, Failure> {
        let port = free_port()?;
        let server = format!(
            "server {{ listen 127.0.0.1:{port} reuseport backlog=4096; location / {{ default_type application/json; \
             return 200 '{ANSWER}'; }} }}"
        );
        self.start_nginx(UPSTREAM, port, &server)
    }

    /// nginx as people put it before an API: connections are kept, calls are limited by address.
    pub(super) fn nginx(&self, upstream: u16) -> Result<Server, Failure> {
        let port = free_port()?;
        let server = format!(
            "limit_req_zone $binary_remote_addr zone=ip:10m rate=1000000r/s;\n\
             upstream api {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}\n\
             server {{ listen 127.0.0.1:{port} reuseport backlog=4096; limit_req zone=ip burst=1000000 nodelay;\n\
             location / {{ proxy_pass http://api; proxy_http_version 1.1; proxy_set_header Connection '';\n\
             proxy_set_header X-Forwarded-For $remote_addr; }} }}"
        );
        self.start_nginx(NGINX, port, &server)
    }

    fn start_nginx(&self, name: &'static str, port: u16, server: &str) -> Result<Server, Failure> {
        let folder = folder();
        let at = folder.join(format!("nginx-{port}"));
        fs::create_dir_all(&at)
            .map_err(|error| Failure::new(format!("{}: {error}", at.display())))?;
        // As root, workers would give up their rights to the files here.
        let user = if succeeds("test -w /root") { "user root;\n" } else { "" };
        let config = format!(
            "{user}daemon off; worker_processes auto; pid {at}/pid; error_log {at}/error.log crit;\n\
             worker_rlimit_nofile 8192; events {{ worker_connections 4096; }}\n\
             http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {at};\n\
             proxy_temp_path {at}; fastcgi_temp_path {at}; uwsgi_temp_path {at}; scgi_temp_path {at};\n{server}\n}}\n",
            at = at.display()
        );
        let file = at.join("nginx.conf");
        write(&file, &config)?;
        self.start(
            name,
            port,
            &format!("nginx -p {} -c {} -e stderr", at.display(), file.display()),
            &[],
        )
    }

    /// The gateway with its three layers, which keep what was spent in a file, as they do by default.
    pub(super) fn tidegate(&self, upstream: u16) -> Result<Server, Failure> {
        let port = free_port()?;
        let file = folder().join("tidegate.toml");
        write(&file, &tidegate_config(upstream, ""))?;
        let state = folder().join(format!("tidegate-{port}.state"));
        let line = format!(
            "{} --config {} --listen 127.0.0.1:{port} --state {}",
            self.binary,
            file.display(),
            state.display()
        );
        self.start(TIDEGATE, port, &line, &[])
    }

    /// The gateway, without a file.
    pub(super) fn tidegate_in_memory(&self, upstream: u16, lines: &str) -> Result<Server, Failure> {
        let port = free_port()?;
        let file = folder().join(format!("tidegate-{port}.toml"));
        write(&file, &tidegate_config(upstream, lines))?;
        let line = format!(
            "{} --config {} --listen 127.0.0.1:{port} --no-state",
            self.binary,
            file.display()
        );
        self.start(TIDEGATE, port, &line, &[])
    }

    /// LiteLLM's proxy with a budget for the provider: budgets by user take a PostgreSQL beside it, and
    /// more of its time.
    pub(super) fn litellm(&self, upstream: u16) -> Result<Server, Failure> {
        let venv = folder().join("venv");
        let litellm = venv.join("bin/litellm").display().to_string();
        if !succeeds(&format!("{litellm} --version")) {
            run(&format!("python3 -m venv --clear {}", venv.display()))?;
            run(&format!("{}/bin/python -m pip install -q litellm[proxy]", venv.display()))?;
        }
        let port = free_port()?;
        let config = format!(
            "model_list:\n  - model_name: gpt-5-mini\n    litellm_params:\n      model: openai/gpt-5-mini\n      \
             api_base: http://127.0.0.1:{upstream}/v1\n      api_key: sk-upstream\n\
             general_settings:\n  master_key: {KEY}\n\
             router_settings:\n  provider_budget_config:\n    openai:\n      budget_limit: 1000000\n      \
             time_period: 1d\n\
             litellm_settings:\n  telemetry: false\n  set_verbose: false\n"
        );
        let file = folder().join("litellm.yaml");
        write(&file, &config)?;
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        let line = format!(
            "{litellm} --config {} --host 127.0.0.1 --port {port} --num_workers {workers}",
            file.display()
        );
        // Its table of prices would be fetched from elsewhere.
        self.start(
            LITELLM,
            port,
            &line,
            &[("LITELLM_LOCAL_MODEL_COST_MAP", "True"), ("LITELLM_LOG", "ERROR")],
        )
    }

    fn start(
        &self,
        name: &'static str,
        port: u16,
        line: &str,
        variables: &[(&str, &str)],
    ) -> Result<Server, Failure> {
        let log = folder().join(format!("{port}.log"));
        let log = fs::File::create(&log)
            .map_err(|error| Failure::new(format!("{}: {error}", log.display())))?;
        let errors = log.try_clone().map_err(|error| Failure::new(error.to_string()))?;
        let chrt = if self.realtime { "chrt -f 50 " } else { "" };
        let mut command = command(&format!("{chrt}{line}"));
        command
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .process_group(0)
            .stdout(log)
            .stderr(errors);
        let process =
            command.spawn().map_err(|error| Failure::new(format!("`{line}`: {error}")))?;
        Ok(Server { name, process, port })
    }
}

/// Layers that are wide enough for any load, over tables as people have them.
fn tidegate_config(upstream: u16, lines: &str) -> String {
    format!(
        "[upstream]\nurl = \"http://127.0.0.1:{upstream}\"\n[auth]\nrequired = [\"/v1/*\"]\n\
         [[user]]\nname = \"bench\"\nkey = \"{KEY}\"\n\
         [[rule]]\nname = \"ip\"\nlimit = \"100_000_000 per minute\"\nalgorithm = \"sliding-window-counter\"\nkey = \"ip\"\n\
         [[rule]]\nname = \"user\"\nlimit = \"100_000_000 per minute\"\nalgorithm = \"sliding-window-counter\"\nkey = \"user\"\n\
         match = {{ authenticated = true }}\n\
         [[rule]]\nname = \"budget\"\nlimit = \"100_000_000_000 per day\"\nalgorithm = \"fixed-window\"\nkey = \"user\"\n\
         cost = \"llm-tokens\"\nmatch = {{ authenticated = true, path = \"/v1/*\" }}\n{lines}"
    )
}

impl Server {
    pub(super) const fn name(&self) -> &'static str {
        self.name
    }

    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    pub(super) const fn key(&self) -> &'static str {
        KEY
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1/chat/completions", self.port)
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits until a call is answered as it should be.
    pub(super) fn wait_until_ready(&self) -> Result<(), Failure> {
        let until = Instant::now() + Duration::from_secs(180);
        let mut last = String::new();
        while Instant::now() < until {
            last = self.ask().unwrap_or_else(|error| error.to_string());
            if last.starts_with("HTTP/1.1 200") && last.contains("\"completion_tokens\":2") {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let log = folder().join(format!("{}.log", self.port));
        Err(Failure::new(format!("{} does not answer: {last}; see {}", self.name, log.display())))
    }

    fn ask(&self) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(request(&[]).as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

/// A call, as bytes on a connection.
pub(super) fn request(fields: &[&str]) -> String {
    let close = if fields.is_empty() { "Connection: close\r\n" } else { "" };
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let body = if fields.is_empty() {
        BODY.to_owned()
    } else {
        BODY.replace("{\"model\"", "{\"stream\":true,\"model\"")
    };
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {KEY}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n{close}{fields}\r\n{body}",
        body.len()
    )
}

impl Drop for Server {
    fn drop(&mut self) {
        // With its workers, which are of its group.
        let group = format!("-{}", self.process.id());
        let tell =
            |signal| command(&format!("kill {signal} -- {group}")).stderr(Stdio::null()).status();
        let _ = tell("-TERM");
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until && matches!(self.process.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = tell("-KILL");
        let _ = self.process.wait();
    }
}

fn free_port() -> Result<u16, Failure> {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    free.map(|address| address.port())
        .map_err(|error| Failure::new(format!("no port is free: {error}")))
}

fn write(path: &std::path::Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}
