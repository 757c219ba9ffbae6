//! TLS: certificates read when the server starts, and again when they change.
//!
//! Invariant: a pair that cannot be used never takes the place of one that can.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// What the files hold.
#[derive(Clone, PartialEq)]
pub struct Pem {
    /// The certificate chain, the server's own first.
    pub certificates: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
    /// Whose certificates clients must show; any client may come when absent.
    pub client_ca: Option<Vec<u8>>,
}

/// Never shows the key.
impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({} bytes of certificates)", self.certificates.len())
    }
}

/// Reads the files; the error names the one that cannot be read.
pub type ReadPem = dyn Fn() -> Result<Pem, String> + Send + Sync;

/// The certificate in use, and where it comes from.
pub(crate) struct Tls {
    read: Box<ReadPem>,
    in_use: Mutex<Pem>,
    acceptor: RwLock<TlsAcceptor>,
}

impl Tls {
    /// Reads the files.
    pub(crate) fn open(read: Box<ReadPem>) -> Result<Self, String> {
        let pem = read()?;
        let acceptor = RwLock::new(acceptor(&pem)?);
        Ok(Self { read, in_use: Mutex::new(pem), acceptor })
    }

    /// What the next connection is accepted with.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the files again; answers whether they had changed. On an error the pair in use stays.
    pub(crate) fn refresh(&self) -> Result<bool, String> {
        let pem = (self.read)()?;
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if *in_use == pem {
            return Ok(false);
        }
        let fresh = acceptor(&pem)?;
        *self.acceptor.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        *in_use = pem;
        Ok(true)
    }
}

fn acceptor(pem: &Pem) -> Result<TlsAcceptor, String> {
    let chain = certificates(&pem.certificates, "tls.certificate")?;
    let key = PrivateKeyDer::from_pem_slice(&pem.key)
        .map_err(|error| format!("tls.key: holds no private key in PEM: {error}"))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("tls: {error}"))?;
    let builder = match &pem.client_ca {
        None => builder.with_no_client_auth(),
        Some(authorities) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(authorities, "tls.client_ca")? {
                roots.add(authority).map_err(|error| format!("tls.client_ca: {error}"))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(
                verifier.map_err(|error| format!("tls.client_ca: {error}"))?,
            )
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| format!("tls.certificate and tls.key do not go together: {error}"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(pem: &[u8], setting: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|error| format!("{setting}: is no PEM: {error}"))?;
    if chain.is_empty() {
        return Err(format!("{setting}: holds no certificate in PEM"));
    }
    Ok(chain)
}
