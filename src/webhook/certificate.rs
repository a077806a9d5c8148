//! The endpoint's certificate: two files of a mounted Secret, read again when they change.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// How often the files are looked at. The kubelet takes about a minute to bring a changed Secret.
const EVERY: Duration = Duration::from_secs(10);

/// The certificate and its key, as they were read last.
pub struct Certificate {
    folder: PathBuf,
    read: Mutex<CertificateRead>,
}

#[derive(Default)]
struct CertificateRead {
    /// What the files held, to see whether they changed.
    files: Option<(Vec<u8>, Vec<u8>)>,
    /// The last pair that could be used.
    usable: Option<Arc<CertifiedKey>>,
    error: Option<String>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads `tls.crt` and `tls.key` in this folder. Files that cannot be used are told of, and tried again.
    #[must_use]
    pub fn read(folder: &Path) -> Arc<Self> {
        let certificate = Arc::new(Self { folder: folder.to_owned(), read: Mutex::default() });
        certificate.refresh();
        certificate
    }

    /// Reads the files again. A pair that cannot be used does not take the place of one that can.
    pub fn refresh(&self) {
        let files = self.files();
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let files = match files {
            Ok(files) if read.files.as_ref() == Some(&files) => return,
            Ok(files) => files,
            Err(error) => {
                if read.error.as_ref() != Some(&error) {
                    tracing::warn!(error, "the certificate of the webhook endpoint cannot be read");
                }
                read.error = Some(error);
                return;
            }
        };
        match pair(&files.0, &files.1) {
            Ok(usable) => {
                tracing::info!(folder = %self.folder.display(), "the webhook endpoint has a certificate");
                read.usable = Some(Arc::new(usable));
                read.error = None;
            }
            Err(error) => {
                let error = format!("{}: {error}", self.folder.display());
                tracing::warn!(error, "the certificate of the webhook endpoint cannot be used");
                read.error = Some(error);
            }
        }
        read.files = Some(files);
    }

    fn files(&self) -> Result<(Vec<u8>, Vec<u8>), String> {
        let file = |name: &str| {
            let path = self.folder.join(name);
            std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
        };
        Ok((file("tls.crt")?, file("tls.key")?))
    }

    /// Why no connection can be accepted. A pair from before goes on being used.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.error.clone().filter(|_| read.usable.is_none())
    }

    /// Looks after the files for ever.
    pub async fn keep_fresh(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            ticks.tick().await;
            self.refresh();
        }
    }

    /// What a TLS server needs.
    ///
    /// # Errors
    /// When there is no TLS to be had.
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
        self.read.lock().unwrap_or_else(PoisonError::into_inner).usable.clone()
    }
}

/// The pair that two files hold. What is told never quotes them.
fn pair(certificates: &[u8], key: &[u8]) -> Result<CertifiedKey, String> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificates)
        .collect::<Result<_, _>>()
        .map_err(|_| "tls.crt is not PEM".to_owned())?;
    if chain.is_empty() {
        return Err("tls.crt has no certificate in it".to_owned());
    }
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|_| "tls.key has no private key in PEM".to_owned())?;
    let key = ring::sign::any_supported_type(&key).map_err(|_| {
        "tls.key is a kind of key that is not supported; use ECDSA, Ed25519 or RSA".to_owned()
    })?;
    let pair = CertifiedKey::new(chain, key);
    pair.keys_match().map_err(|error| format!("tls.crt and tls.key do not belong together: {error}"))?;
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
    fn files_that_come_late_or_change_are_taken_and_bad_ones_do_not_replace_good_ones() {
        let folder = std::env::temp_dir().join(format!("laurel-certificate-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let write = |crt: &[u8], key: &[u8]| {
            fs::write(folder.join("tls.crt"), crt).unwrap();
            fs::write(folder.join("tls.key"), key).unwrap();
        };
        let certificate = Certificate::read(&folder);
        assert!(certificate.error().unwrap().contains("tls.crt"));
        for (crt, key, said) in [
            (&b""[..], KEY, "tls.crt has no certificate"),
            (CRT, &b"secret"[..], "tls.key has no private key"),
            (OTHER_CRT, KEY, "do not belong together"),
        ] {
            write(crt, key);
            certificate.refresh();
            let error = certificate.error().unwrap();
            assert!(error.contains(said) && !error.contains("secret"), "{error}");
        }
        write(CRT, KEY);
        certificate.refresh();
        assert_eq!(certificate.error(), None);
        write(OTHER_CRT, KEY);
        certificate.refresh();
        assert_eq!(certificate.error(), None, "the good one goes on");
        assert!(certificate.read.lock().unwrap().error.is_some());
        fs::remove_dir_all(&folder).unwrap();
    }
}
