//! The endpoint's certificate: two files of a mounted Secret, reloaded when they change.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// How often the files are checked. The kubelet takes about a minute to update a mounted Secret.
const INTERVAL: Duration = Duration::from_secs(10);

/// The certificate and its key, as last read.
pub struct Certificate {
    folder: PathBuf,
    loaded: Mutex<Loaded>,
}

#[derive(Default)]
struct Loaded {
    /// The files' contents, to detect changes.
    files: Option<(Vec<u8>, Vec<u8>)>,
    /// The last valid pair.
    usable: Option<Arc<CertifiedKey>>,
    /// Why the files, as last read, cannot be used.
    error: Option<String>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads `tls.crt` and `tls.key` in this folder. Files that cannot be used are logged, and read again
    /// later.
    #[must_use]
    pub fn read(folder: &Path) -> Arc<Self> {
        let certificate = Arc::new(Self { folder: folder.to_owned(), loaded: Mutex::default() });
        certificate.refresh();
        certificate
    }

    /// Reads the files again. An invalid pair does not replace a valid one.
    pub fn refresh(&self) {
        let files = self.files();
        let mut loaded = self.loaded.lock();
        let files = match files {
            Ok(files) if loaded.files.as_ref() == Some(&files) => return,
            Ok(files) => files,
            Err(error) => {
                if loaded.error.as_ref() != Some(&error) {
                    tracing::warn!(error, "cannot read the certificate of the webhook endpoint");
                }
                loaded.error = Some(error);
                return;
            }
        };
        match pair(&files.0, &files.1) {
            Ok(usable) => {
                tracing::info!(folder = %self.folder.display(), "webhook endpoint certificate loaded");
                loaded.usable = Some(Arc::new(usable));
                loaded.error = None;
            }
            Err(error) => {
                let error = format!("{}: {error}", self.folder.display());
                tracing::warn!(error, "the certificate of the webhook endpoint is not valid");
                loaded.error = Some(error);
            }
        }
        loaded.files = Some(files);
    }

    fn files(&self) -> Result<(Vec<u8>, Vec<u8>), String> {
        let file = |name: &str| {
            let path = self.folder.join(name);
            std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
        };
        Ok((file("tls.crt")?, file("tls.key")?))
    }

    /// Returns why no connection can be accepted. An earlier valid pair stays in use.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        let loaded = self.loaded.lock();
        loaded.error.clone().filter(|_| loaded.usable.is_none())
    }

    /// Reloads the files when they change, forever.
    pub async fn keep_fresh(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(INTERVAL);
        loop {
            ticks.tick().await;
            self.refresh();
        }
    }

    /// Returns the configuration of a TLS server with this certificate.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub fn server(self: &Arc<Self>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.loaded.lock().usable.clone()
    }
}

/// Parses the two files. Errors never quote them.
fn pair(certificates: &[u8], key: &[u8]) -> Result<CertifiedKey, String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificates)
        .collect::<Result<_, _>>()
        .map_err(|_| "tls.crt is not PEM".to_owned())?;
    if chain.is_empty() {
        return Err("tls.crt contains no certificate".to_owned());
    }
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|_| "tls.key contains no PEM private key".to_owned())?;
    let key = ring::sign::any_supported_type(&key)
        .map_err(|_| "tls.key is of an unsupported type; use ECDSA, Ed25519 or RSA".to_owned())?;
    let pair = CertifiedKey::new(chain, key);
    pair.keys_match().map_err(|error| format!("tls.crt and tls.key do not match: {error}"))?;
    Ok(pair)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const CRT: &[u8] = include_bytes!("../../tests/support/tls/server.pem");
    const KEY: &[u8] = include_bytes!("../../tests/support/tls/server.key");
    const OTHER_CRT: &[u8] = include_bytes!("../../tests/support/tls/ca.pem");

    #[test]
    fn late_or_changed_files_are_loaded_and_invalid_ones_do_not_replace_valid_ones() {
        let folder = std::env::temp_dir().join(format!("laurel-certificate-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let write = |crt: &[u8], key: &[u8]| {
            fs::write(folder.join("tls.crt"), crt).unwrap();
            fs::write(folder.join("tls.key"), key).unwrap();
        };
        let certificate = Certificate::read(&folder);
        assert!(certificate.error().unwrap().contains("tls.crt"));
        for (crt, key, expected) in [
            (&b""[..], KEY, "tls.crt contains no certificate"),
            (CRT, &b"secret"[..], "tls.key contains no PEM private key"),
            (OTHER_CRT, KEY, "do not match"),
        ] {
            write(crt, key);
            certificate.refresh();
            let error = certificate.error().unwrap();
            assert!(error.contains(expected) && !error.contains("secret"), "{error}");
        }
        write(CRT, KEY);
        certificate.refresh();
        assert_eq!(certificate.error(), None);
        write(OTHER_CRT, KEY);
        certificate.refresh();
        assert_eq!(certificate.error(), None, "the valid pair stays in use");
        assert!(certificate.loaded.lock().error.is_some());
        fs::remove_dir_all(&folder).unwrap();
    }
}
