//! Starting and stopping.

use std::process::{Command, Output};
use std::sync::{Mutex, mpsc};

use crate::process::{Gateway, Upstream, get};

pub fn run(args: &[&str]) -> Output {
    let state = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(args).env("STATE_DIRECTORY", state.path()).output().unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_bad_configuration_is_one_clear_error_and_exit_code_2() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    std::fs::write(path, "listen = \"127.0.0.1:0\"\n[[rule]]\nname = \"ip\"\nlimit = \"100 a minute\"\nkey = \"ip\"\n")
        .unwrap();
    let output = run(&["--config", path]);
    assert_eq!(output.status.code(), Some(2));
    let expected = format!(
        "error: {path}:4:9: rule `ip`: limit: `100 a minute` is not a rate; \
         write it as in `100 per minute` or `5 per 30 seconds`\n"
    );
    assert_eq!(stderr(&output), expected);

    let output = run(&["--config", "/no/such/file.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).starts_with("error: cannot read /no/such/file.toml:"),
        "{}",
        stderr(&output)
    );

    let output = run(&["--trusted-proxy", "everybody"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn an_address_in_use_is_told_with_the_remedy() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let output = run(&["--listen", &taken.local_addr().unwrap().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("choose another address with --listen"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn the_printed_configuration_is_one_that_works() {
    let output = run(&["--print-config"]);
    assert!(output.status.success());
    let gateway = Gateway::configured(&String::from_utf8(output.stdout).unwrap());
    assert_ne!(gateway.address().port(), 0);
}

#[test]
fn told_to_stop_as_soon_as_it_says_that_it_listens_it_stops_well() {
    for _ in 0..10 {
        let mut gateway = Gateway::demo(&["--no-state"]);
        gateway.signal("-TERM");
        assert_eq!(gateway.wait(), Some(0), "and is not ended by the signal");
    }
}

/// The upstream says when the request is under way, and answers only after the gateway has been seen to
/// stop accepting connections.
#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_it_ends_open_requests_first() {
    let (arrived, has_arrived) = mpsc::channel();
    let (finish, may_finish) = mpsc::channel();
    let channels = Mutex::new((arrived, may_finish));
    let upstream = Upstream::start(move |_, _| {
        let (arrived, may_finish) = &*channels.lock().unwrap();
        arrived.send(()).unwrap();
        may_finish.recv().unwrap();
        axum::response::Response::new(axum::body::Body::from("slow but sure"))
    })
    .await;
    let rule = "[[rule]]\nname = \"ip\"\nlimit = \"50 per minute\"\nkey = \"ip\"\n";
    let config = format!("upstream.url = \"http://{}\"\n{rule}", upstream.address);
    let mut gateway = Gateway::configured(&config);
    let (pid, address) = (gateway.pid().to_string(), gateway.address());
    let stop = tokio::task::spawn_blocking(move || {
        has_arrived.recv().unwrap();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        while std::net::TcpStream::connect(address).is_ok() {
            std::thread::yield_now();
        }
        finish.send(()).unwrap();
    });
    let answer = gateway.send(get("/")).await;
    stop.await.unwrap();
    assert_eq!((answer.status, answer.text()), (200, "slow but sure"));
    assert_eq!(gateway.wait(), Some(0));
}
