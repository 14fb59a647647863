//! TLS, with an authority of one's own.

mod servers;

use std::process::Command;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use servers::{RedisServer, Sentinel, free_port, program, wait_until};
use tidegate::Cost;
use tidegate::policy::{Call, DecidedBy};
use tidegate_redis::{
    Layer, Namespace, RemoteLimit, Server, ServerConfig, Topology, policy_from_toml,
};

/// What servers that were built without TLS say when they are to speak it: of 7.0 and before, of 7.2 and later.
const NO_TLS: [&str; 2] = ["'tls-port", "Missing implement of connection type tls"];

/// Whether the server was built with TLS. One that was ends too: it lacks a certificate.
fn server_has_tls() -> bool {
    let port = free_port().to_string();
    let said = Command::new(program()).args(["--port", "0", "--tls-port", &port]).output();
    let said = said.expect("a redis-server");
    let said = [said.stdout, said.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let reason = said.lines().find(|line| NO_TLS.iter().any(|words| line.contains(words)));
    if let Some(reason) = reason {
        eprintln!("this server was built without TLS, so TLS is not tested: {reason}");
    }
    reason.is_none()
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key for a name, in PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }
}

/// A server with TLS for this name, and its port.
fn start(authority: &Authority, name: &str) -> (RedisServer, u16, tempfile::TempDir) {
    start_with(authority, name, &[])
}

fn start_with(
    authority: &Authority,
    name: &str,
    more: &[&str],
) -> (RedisServer, u16, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = authority.sign(name);
    let path = |file: &str| folder.path().join(file).to_str().unwrap().to_owned();
    std::fs::write(path("cert.pem"), certificate).unwrap();
    std::fs::write(path("key.pem"), key).unwrap();
    std::fs::write(path("ca.pem"), authority.pem()).unwrap();
    let port = free_port();
    let (port_text, cert, key, ca) =
        (port.to_string(), path("cert.pem"), path("key.pem"), path("ca.pem"));
    let arguments = [
        "--save",
        "",
        "--tls-port",
        &port_text,
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &ca,
        "--tls-auth-clients",
        "no",
    ];
    let redis = RedisServer::with(&[&arguments, more].concat());
    (redis, port, folder)
}

async fn decides(port: u16, ca: Option<&str>) -> Result<bool, String> {
    let config = ServerConfig::single(&format!("rediss://127.0.0.1:{port}/?protocol=resp3"))
        .with_timeout(Duration::from_secs(5));
    let config = match ca {
        None => config,
        Some(pem) => config.with_ca(pem.as_bytes()),
    };
    let server = Server::new(&config).map_err(|error| error.to_string())?;
    let limit = "fixed-window, 5 per hour".parse().unwrap();
    let limit = RemoteLimit::new(&Namespace::new("tls").unwrap(), "one", limit).unwrap();
    let layer = Layer::new(&limit, limit.key("alice"), Cost::ONE);
    server.decide(&[layer]).await.map(|answer| answer.is_allow()).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_server_is_believed_if_the_authority_has_signed_it_for_its_name() {
    if !server_has_tls() {
        return;
    }
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (_redis, port, _files) = start(&authority, "127.0.0.1");
    assert_eq!(decides(port, Some(&authority.pem())).await, Ok(true));
    assert!(decides(port, Some(&stranger.pem())).await.is_err(), "signed by another authority");
    assert!(decides(port, None).await.is_err(), "the system does not know this authority");
    assert!(decides(port, Some("no certificate")).await.is_err());
    let (_redis, port, _files) = start(&authority, "redis.example");
    assert!(decides(port, Some(&authority.pem())).await.is_err(), "signed for another name");
}

#[tokio::test]
async fn a_clusters_nodes_are_believed_as_one_server_is() {
    if !server_has_tls() {
        return;
    }
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (node, port, _files) =
        start_with(&authority, "127.0.0.1", &["--cluster-enabled", "yes", "--tls-cluster", "yes"]);
    let slots: String = (0..16_384).map(|slot| format!(" {slot}")).collect();
    let _: () = node.ask(&format!("CLUSTER ADDSLOTS{slots}")).unwrap();
    wait_until("the node has all slots", || {
        node.ask::<String>("CLUSTER INFO").unwrap_or_default().contains("cluster_state:ok")
    });
    let limit = "fixed-window, 5 per hour".parse().unwrap();
    let limit = RemoteLimit::new(&Namespace::new("tls").unwrap(), "one", limit).unwrap();
    let decides = async |signed_by: &Authority| {
        let url = format!("rediss://127.0.0.1:{port}/?protocol=resp3");
        let config = ServerConfig::cluster(&[&url]).with_timeout(Duration::from_secs(5));
        let server = Server::new(&config.with_ca(signed_by.pem().as_bytes())).unwrap();
        server.decide(&[Layer::new(&limit, limit.key("alice"), Cost::ONE)]).await
    };
    assert!(decides(&authority).await.unwrap().is_allow());
    assert!(decides(&stranger).await.is_err(), "signed by another authority");
}

#[test]
fn nodes_that_cannot_be_asked_alike_are_refused() {
    let config = ServerConfig::cluster(&["rediss://127.0.0.1:1", "redis://127.0.0.1:2"]);
    let error = Server::new(&config).unwrap_err();
    assert!(error.to_string().contains("all speak TLS or none"), "{error}");
}

#[tokio::test]
async fn a_server_that_sentinels_watch_is_believed_as_they_are() {
    if !server_has_tls() {
        return;
    }
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (_redis, port, files) = start(&authority, "127.0.0.1");
    let path = |file: &str| files.path().join(file).display().to_string();
    let (plain_port, sentinel_port) = (free_port(), free_port());
    let config = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        "port {plain_port}\ntls-port {sentinel_port}\nbind 127.0.0.1\ntls-replication yes\n\
         tls-auth-clients no\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\n\
         sentinel monitor main 127.0.0.1 {port} 1\n",
        path("cert.pem"),
        path("key.pem"),
        path("ca.pem"),
    );
    std::fs::write(config.path(), text).unwrap();
    let _sentinel = Sentinel::start(config, plain_port);
    let limit = "fixed-window, 5 per hour".parse().unwrap();
    let limit = RemoteLimit::new(&Namespace::new("tls").unwrap(), "one", limit).unwrap();
    for (scheme, sentinel) in [("rediss", sentinel_port), ("redis", plain_port)] {
        let decides = async |signed_by: &Authority| {
            let config = ServerConfig::new(Topology::Sentinel {
                sentinels: vec![format!("{scheme}://127.0.0.1:{sentinel}")],
                master: "main".to_owned(),
                url: "rediss://localhost/?protocol=resp3".to_owned(),
            });
            let config = config.with_timeout(Duration::from_secs(20));
            let server = Server::new(&config.with_ca(signed_by.pem().as_bytes())).unwrap();
            server.decide(&[Layer::new(&limit, limit.key("alice"), Cost::ONE)]).await
        };
        assert!(decides(&authority).await.unwrap().is_allow(), "{scheme}");
        assert!(decides(&stranger).await.is_err(), "{scheme}: signed by another authority");
    }
}

#[test]
fn sentinels_that_cannot_be_asked_alike_are_refused() {
    let sentinels = ["rediss://127.0.0.1:1", "redis://127.0.0.1:2"];
    let config = ServerConfig::new(Topology::Sentinel {
        sentinels: sentinels.map(str::to_owned).to_vec(),
        master: "main".to_owned(),
        url: "rediss://localhost".to_owned(),
    });
    let error = Server::new(&config.with_ca(Authority::new().pem().as_bytes())).unwrap_err();
    assert!(error.to_string().contains("all speak TLS or none"), "{error}");
}

#[tokio::test]
async fn a_policy_file_names_the_authority() {
    if !server_has_tls() {
        return;
    }
    let authority = Authority::new();
    let (_redis, port, files) = start(&authority, "127.0.0.1");
    let ca = files.path().join("ca.pem");
    let text = format!(
        "[redis]\nurl = \"rediss://127.0.0.1:{port}\"\ntimeout_ms = 5000\nca_file = \"{}\"\n\
         [[rule]]\nname = \"r\"\nlimit = \"1 per hour\"\nkey = \"global\"\n",
        ca.display()
    );
    let policy = policy_from_toml(&text).unwrap();
    let verdict = policy.decide_async(&Call::new("GET", "/")).await;
    assert!(verdict.is_allow());
    assert_eq!(verdict.standings()[0].decided_by(), DecidedBy::Server);
}
