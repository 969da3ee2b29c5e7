//! Why libp2p gave no stream, in the few kinds that dialing tells apart.
//!
//! It owns the translation of libp2p's dial errors. It refuses to word them: `error` does.

use std::io;

use libp2p::core::transport::TransportError;
use libp2p::swarm::DialError;

use crate::key::{PeerKey, peer_key};

/// Why there is no stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// Another key than the expected one was proved: this one, if it is a node's.
    WrongKey(Option<PeerKey>),
    ThisNode,
    /// What the operating system said, where it said something.
    Transport(Option<io::ErrorKind>),
    /// This node's own limits.
    Full,
    OtherProtocol,
    NoReply,
    /// The connection ended meanwhile.
    Lost,
}

impl From<&DialError> for OpenError {
    fn from(error: &DialError) -> Self {
        match error {
            DialError::WrongPeerId { obtained, .. } => OpenError::WrongKey(peer_key(obtained)),
            DialError::LocalPeerId { .. } => OpenError::ThisNode,
            DialError::Denied { .. } => OpenError::Full,
            DialError::Transport(tries) => {
                OpenError::Transport(tries.iter().find_map(|(_, error)| error_kind(error)))
            }
            DialError::NoAddresses | DialError::DialPeerConditionFalse(_) | DialError::Aborted => {
                OpenError::Lost
            }
        }
    }
}

/// What the operating system said, by its number in the text. The chain of sources does not lead
/// there: the sum types in libp2p's errors forward `source` and so skip the error they hold.
fn error_kind(error: &TransportError<io::Error>) -> Option<io::ErrorKind> {
    let TransportError::Other(error) = error else {
        return None;
    };
    let text = error.to_string();
    let (_, number) = text.rsplit_once("(os error ")?;
    let (number, _) = number.split_once(')')?;
    Some(io::Error::from_raw_os_error(number.parse().ok()?).kind())
}
