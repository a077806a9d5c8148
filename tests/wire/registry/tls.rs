//! HTTPS with a private CA: trusted when it is named, and the error says so when it is not.
//!
//! The certificates are valid from 2020 to 2120, for `localhost` and `127.0.0.1`.

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::Arc,
};

use laurel::registry::{
    Registry, RegistryError,
    mlflow::{Connection, ConnectionError, MlflowRegistry},
};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::support::{connection, model};

const CA: &[u8] = include_bytes!("../../support/tls/ca.pem");

/// A server that answers every request with an empty page of versions.
fn serve() -> String {
    let certificate = CertificateDer::from_pem_slice(include_bytes!("../../support/tls/server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../../support/tls/server.key")).unwrap();
    let config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            // A client that does not trust us breaks off.
            if stream.read(&mut [0; 4096]).is_ok() {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
                let _ = stream.flush();
            }
        }
    });
    format!("https://localhost:{port}")
}

async fn ask(ca_pem: Option<&[u8]>) -> Result<(), RegistryError> {
    let unused = connection("http://localhost");
    let url = serve().parse().unwrap();
    let connection = Connection { url, ca_pem: ca_pem.map(<[u8]>::to_vec), ..unused };
    MlflowRegistry::new(connection).unwrap().newest_versions(&model("fraud"), 1).await.map(drop)
}

#[tokio::test]
async fn a_named_ca_is_trusted() {
    ask(Some(CA)).await.unwrap();
    // Bundles with several certificates and text between them are common.
    let bundle = [b"# ours\n", CA, b"\n# theirs\n", include_bytes!("../../support/tls/server.pem")].concat();
    ask(Some(&bundle)).await.unwrap();
}

#[tokio::test]
async fn another_ca_is_not() {
    let error = ask(None).await.unwrap_err();
    let RegistryError::Unreachable { cause, .. } = error else { panic!("{error}") };
    assert!(cause.ends_with("name that CA"), "{cause}");
}

#[test]
fn an_invalid_certificate_is_rejected() {
    let not_der = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec();
    let key = include_bytes!("../../support/tls/server.key").to_vec();
    for pem in [b"".to_vec(), b"garbage".to_vec(), not_der, key] {
        let connection = Connection { ca_pem: Some(pem.clone()), ..connection("https://localhost") };
        let error = MlflowRegistry::new(connection).unwrap_err();
        assert!(matches!(error, ConnectionError::Ca { .. }), "{error} for {pem:?}");
    }
}
