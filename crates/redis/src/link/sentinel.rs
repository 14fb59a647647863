//! Clients of the servers that sentinels watch.

use redis::sentinel::{
    SentinelClient, SentinelClientBuilder, SentinelNodeConnectionInfo, SentinelServerType,
};
use redis::{
    ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisResult, TlsCertificates,
    TlsMode,
};

/// A client of the servers that sentinels watch.
pub(super) fn watched(
    sentinels: &[String],
    master: &str,
    url: &str,
) -> RedisResult<SentinelClient> {
    let server = url.into_connection_info()?;
    let is_tls = matches!(server.addr(), ConnectionAddr::TcpTls { .. });
    let server = SentinelNodeConnectionInfo::default()
        .set_redis_connection_info(server.redis_settings().clone());
    let server = if is_tls { server.set_tls_mode(TlsMode::Secure) } else { server };
    let sentinels = sentinels.iter().map(String::as_str).collect();
    SentinelClient::build(sentinels, master, Some(server), SentinelServerType::Master)
}

/// The same, where an authority of one's own has signed all that speak TLS. The client library knows only
/// one user for all sentinels then, and only sentinels that all speak TLS, or all not.
pub(super) fn watched_and_signed(
    sentinels: &[String],
    master: &str,
    url: &str,
    certificates: TlsCertificates,
) -> RedisResult<SentinelClient> {
    let is_tls = |info: &ConnectionInfo| matches!(info.addr(), ConnectionAddr::TcpTls { .. });
    let server = url.into_connection_info()?;
    let sentinels = sentinels.iter().map(|url| url.as_str().into_connection_info());
    let sentinels = sentinels.collect::<RedisResult<Vec<_>>>()?;
    let Some(first) = sentinels.first() else {
        return Err((ErrorKind::EmptySentinelList, "there are no sentinels").into());
    };
    let user = |info: &ConnectionInfo| {
        let settings = info.redis_settings();
        (settings.username().map(str::to_owned), settings.password().map(str::to_owned))
    };
    let differs =
        |other: &ConnectionInfo| is_tls(other) != is_tls(first) || user(other) != user(first);
    if sentinels.iter().any(differs) {
        let message = "with an authority of one's own, sentinels must all have one user, and all speak TLS or none";
        return Err((ErrorKind::InvalidClientConfig, message).into());
    }
    let addresses = sentinels.iter().map(|sentinel| sentinel.addr().clone());
    let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?;
    if is_tls(first) {
        builder = builder
            .set_client_to_sentinel_tls_mode(TlsMode::Secure)
            .set_client_to_sentinel_certificates(certificates.clone());
    }
    let (name, password) = user(first);
    builder = name
        .into_iter()
        .fold(builder, |builder, name| builder.set_client_to_sentinel_username(name));
    builder = password
        .into_iter()
        .fold(builder, |builder, word| builder.set_client_to_sentinel_password(word));
    if is_tls(&server) {
        builder = builder
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_redis_certificates(certificates);
    }
    let settings = server.redis_settings();
    builder = builder
        .set_client_to_redis_db(settings.db())
        .set_client_to_redis_protocol(settings.protocol());
    let (name, password) = user(&server);
    builder =
        name.into_iter().fold(builder, |builder, name| builder.set_client_to_redis_username(name));
    builder = password
        .into_iter()
        .fold(builder, |builder, word| builder.set_client_to_redis_password(word));
    builder.build()
}
