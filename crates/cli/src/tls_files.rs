//! [`TlsFiles`]: the files of a certificate, as the settings name them.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use mainstay_server::settings::Settings;
use mainstay_server::tls::Pem;

use crate::failure::Failure;

/// The longest file that is read: chains fill some kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where a certificate stands.
pub(crate) struct TlsFiles {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

impl TlsFiles {
    /// The files that the settings name; nothing when they name none.
    pub(crate) fn of(settings: &Settings) -> Result<Option<Self>, Failure> {
        let path = |name| Some(settings.text(name)).filter(|text| !text.is_empty());
        match (path("tls.certificate"), path("tls.key"), path("tls.client_ca")) {
            (None, None, None) => Ok(None),
            (Some(certificate), Some(key), client_ca) => Ok(Some(Self {
                certificate: certificate.into(),
                key: key.into(),
                client_ca: client_ca.map(PathBuf::from),
            })),
            _ => Err(Failure::usage(
                "tls.certificate and tls.key go together, and tls.client_ca needs both",
            )),
        }
    }

    /// Reads them.
    pub(crate) fn read(&self) -> Result<Pem, String> {
        Ok(Pem {
            certificates: read(&self.certificate)?,
            key: read(&self.key)?,
            client_ca: self.client_ca.as_deref().map(read).transpose()?,
        })
    }
}

/// Reads a file of a certificate or key.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("{}: is longer than {FILE_BYTES_MAX} bytes", path.display()));
    }
    Ok(bytes)
}
