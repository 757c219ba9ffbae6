//! [`Trust`]: whose certificate a command believes, and which one it shows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use crate::failure::Failure;
use crate::tls_files::read;

/// How a command and a server with `tls.certificate` know each other.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Trust {
    /// The authorities in PEM that the server's certificate must come from, in place of those that
    /// browsers trust
    #[arg(long, global = true, env = "MAINSTAY_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The certificate chain in PEM to show to a server with tls.client_ca; with --cert-key
    #[arg(long, global = true, env = "MAINSTAY_CERT", value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The private key in PEM of --cert
    #[arg(long, global = true, env = "MAINSTAY_CERT_KEY", value_name = "FILE")]
    cert_key: Option<PathBuf>,
}

impl Trust {
    /// For the client of most commands.
    pub(crate) fn of_agent(&self) -> Result<TlsConfig, Failure> {
        let certificates = |path: &Path| -> Result<Vec<Certificate<'static>>, Failure> {
            let chain = chain(path)?;
            Ok(chain.iter().map(|one| Certificate::from_der(one).to_owned()).collect())
        };
        let mut tls = TlsConfig::builder();
        if let Some(ca) = &self.ca {
            tls = tls.root_certs(RootCerts::new_with_certs(&certificates(ca)?));
        }
        if let Some((cert, key)) = self.shown()? {
            let read = pem(key)?;
            let key = PrivateKey::from_pem(&read).map_err(|error| unusable(key, &error))?;
            tls = tls.client_cert(Some(ClientCert::new_with_certs(&certificates(cert)?, key)));
        }
        Ok(tls.build())
    }

    /// For the client of `mainstay load`.
    pub(crate) fn of_load(&self) -> Result<Arc<ClientConfig>, Failure> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(ca) => {
                for root in chain(ca)? {
                    roots.add(root).map_err(|error| unusable(ca, &error))?;
                }
            }
        }
        let config = ClientConfig::builder().with_root_certificates(roots);
        Ok(Arc::new(match self.shown()? {
            None => config.with_no_client_auth(),
            Some((cert, key)) => {
                let read = PrivateKeyDer::from_pem_slice(&pem(key)?);
                let read = read.map_err(|error| unusable(key, &error))?;
                let config = config.with_client_auth_cert(chain(cert)?, read);
                config.map_err(|error| unusable(cert, &error))?
            }
        }))
    }

    /// The files of what is shown to the server.
    fn shown(&self) -> Result<Option<(&Path, &Path)>, Failure> {
        match (&self.cert, &self.cert_key) {
            (None, None) => Ok(None),
            (Some(cert), Some(key)) => Ok(Some((cert, key))),
            _ => Err(Failure::usage("--cert and --cert-key go together")),
        }
    }
}

fn pem(path: &Path) -> Result<Vec<u8>, Failure> {
    read(path).map_err(Failure::usage)
}

/// The certificates of a file, at least one.
fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let bytes = pem(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.map_err(|error| unusable(path, &error))?;
    match chain.is_empty() {
        true => Err(unusable(path, &"it holds no certificate in PEM")),
        false => Ok(chain),
    }
}

fn unusable(path: &Path, why: &dyn std::fmt::Display) -> Failure {
    Failure::usage(format!("{}: {why}", path.display()))
}
