//! TLS, with an authority of one's own.

mod servers;

use std::process::Command;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use servers::{RedisServer, free_port};
use tidegate::Cost;
use tidegate::policy::{Call, DecidedBy};
use tidegate_redis::{Layer, Namespace, RemoteLimit, Server, ServerConfig, policy_from_toml};

/// Whether the server was built with TLS: if not, it does not know the word.
fn server_has_tls() -> bool {
    let program =
        std::env::var_os("TIDEGATE_REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
    let said = Command::new(program).args(["--tls-port", "0", "--no-such-word", "0"]).output();
    let said = said.expect("a redis-server").stderr;
    let has_tls = !String::from_utf8_lossy(&said).contains("'tls-port");
    if !has_tls {
        eprintln!("this redis-server was built without TLS, so TLS is not tested");
    }
    has_tls
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
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = authority.sign(name);
    let path = |file: &str| folder.path().join(file).to_str().unwrap().to_owned();
    std::fs::write(path("cert.pem"), certificate).unwrap();
    std::fs::write(path("key.pem"), key).unwrap();
    std::fs::write(path("ca.pem"), authority.pem()).unwrap();
    let port = free_port();
    let (port_text, cert, key, ca) =
        (port.to_string(), path("cert.pem"), path("key.pem"), path("ca.pem"));
    let redis = RedisServer::with(&[
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
    ]);
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
