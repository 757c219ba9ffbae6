//! [`Caller`]: who sent a request, for limits, flags and the audit trail.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use mainstay_ops::keys::Identity;

/// What limits of an address are counted by: the address; of IPv6 the first 64 bits, because whoever
/// has one such address has all of them.
pub(crate) fn owner_of(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

/// Who sent a request: a key, or somebody at an address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller {
    identity: Option<Arc<Identity>>,
    peer: Option<IpAddr>,
}

impl Caller {
    pub(crate) fn of_key(identity: Arc<Identity>) -> Self {
        Self { identity: Some(identity), peer: None }
    }

    pub(crate) fn of_peer(peer: Option<IpAddr>) -> Self {
        Self { identity: None, peer }
    }

    /// The id of the key, or `anonymous`.
    pub(crate) fn name(&self) -> &str {
        self.identity.as_ref().map_or("anonymous", |identity| &identity.id)
    }

    /// What limits are counted by: the key, or whose the address is.
    pub(crate) fn key(&self) -> Cow<'_, str> {
        match (&self.identity, self.peer) {
            (Some(identity), _) => (&*identity.id).into(),
            (None, Some(peer)) => owner_of(peer).into(),
            (None, None) => "unknown".into(),
        }
    }

    /// Whether it may touch this collection.
    pub(crate) fn allows(&self, collection: &str) -> bool {
        self.identity.as_ref().is_none_or(|identity| identity.allows(collection))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn o4_an_address_counts_as_its_owner_has_it() {
        for (peer, key) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ] {
            assert_eq!(Caller::of_peer(Some(peer.parse().unwrap())).key(), key);
        }
        assert_eq!(Caller::default().key(), "unknown");
    }
}
