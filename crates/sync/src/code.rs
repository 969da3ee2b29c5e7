//! Why a session is refused, or a ledger rejected: codes for programs, words for people.
//!
//! Owns the texts in Chinese and English that both sides log and show.
//! Refuses control characters and overlong words before they leave.

use minicbor::{Decode, Encode};

use crate::limits::REASON_BYTES_MAX;

/// Why a session is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum RefusalCode {
    /// No charter was shown.
    #[n(1)]
    Missing,
    /// A charter of the chain is not valid at this time.
    #[n(2)]
    Expired,
    /// A charter of the chain was revoked.
    #[n(3)]
    Revoked,
    /// The chain does not lead to this realm's root.
    #[n(4)]
    OtherRealm,
    /// The charter is not for the key that the transport proved.
    #[n(5)]
    WrongKey,
    /// The two nodes are not parent and child.
    #[n(6)]
    NotParentOrChild,
    /// A message that cannot be read, is out of turn, or has a forged signature.
    #[n(7)]
    Malformed,
    /// Another version of the protocol.
    #[n(8)]
    Version,
    /// The enrolment is not expected, or its secret is wrong, used or too old.
    #[n(9)]
    Enrolment,
}

impl RefusalCode {
    /// The code as a stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::OtherRealm => "other-realm",
            Self::WrongKey => "wrong-key",
            Self::NotParentOrChild => "not-parent-or-child",
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::Enrolment => "enrolment",
        }
    }

    /// What happened and what to do, in Chinese, then in English.
    pub fn text(self) -> &'static str {
        match self {
            Self::Missing => {
                "没有出示节点证书，请先办理入网登记 / no charter was shown; enrol the node first"
            }
            Self::Expired => {
                "节点证书不在有效期内，请上级节点换发，并核对双方时钟 / a charter is not valid at this time; ask the parent to renew it, and check both clocks"
            }
            Self::Revoked => {
                "节点证书已被吊销，请重新办理入网登记 / a charter was revoked; the node must be enrolled again"
            }
            Self::OtherRealm => {
                "节点证书不属于本辖域，请核对上级地址 / the charter does not lead to this realm's root; check the address of the parent"
            }
            Self::WrongKey => {
                "节点证书与连接密钥不符，请核对节点身份 / the charter is not for the key of this connection; check which node this is"
            }
            Self::NotParentOrChild => {
                "双方不是直接上下级，请改连直接上级 / the two nodes are not parent and child; dial the direct parent"
            }
            Self::Malformed => {
                "报文无法识别，请检查双方软件版本 / a message cannot be accepted; check the software of both nodes"
            }
            Self::Version => {
                "协议版本不同，请升级较旧的节点 / the protocol versions differ; update the older node"
            }
            Self::Enrolment => {
                "入网口令无效、已用过或已过期，请向上级重新申领 / the enrolment secret is wrong, used or too old; ask the parent for another"
            }
        }
    }
}

/// Why what is offered of a ledger is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum RejectCode {
    /// The head is shorter than what is held.
    #[n(1)]
    Shorter,
    /// Two signed heads of one size with different roots: evidence.
    #[n(2)]
    Fork,
    /// The entries or the head do not continue what is held.
    #[n(3)]
    Mismatch,
    /// The head is not signed by the ledger's owner.
    #[n(4)]
    Signature,
    /// An entry is malformed, or of another kind than the ledger.
    #[n(5)]
    Entry,
    /// A body is missing, surplus or not the one that the entry names.
    #[n(6)]
    Body,
    /// An act does not hold, or not for these entries.
    #[n(7)]
    Act,
    /// The receiver does not take this ledger from this peer.
    #[n(8)]
    NotAccepted,
    /// The sender cannot give the entries, or the receiver cannot store them, at present.
    #[n(9)]
    Unavailable,
    /// More ledgers than a session may have.
    #[n(10)]
    TooMany,
}

impl RejectCode {
    /// The code as a stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shorter => "shorter",
            Self::Fork => "fork",
            Self::Mismatch => "mismatch",
            Self::Signature => "signature",
            Self::Entry => "entry",
            Self::Body => "body",
            Self::Act => "act",
            Self::NotAccepted => "not-accepted",
            Self::Unavailable => "unavailable",
            Self::TooMany => "too-many",
        }
    }

    /// Whether an officer must look: the history or its signatures are in doubt.
    pub fn is_alarm(self) -> bool {
        !matches!(self, Self::NotAccepted | Self::Unavailable | Self::TooMany)
    }

    /// What happened, in Chinese; the English side carries the detail.
    fn chinese(self) -> &'static str {
        match self {
            Self::Shorter => "账本比已收存的短，请先从上级取回缺少的条目",
            Self::Fork => "账本出现两个不同的签名账头，已保留证据，请安全员处理",
            Self::Mismatch => "账本历史与已收存的不一致，请安全员核查",
            Self::Signature => "账头签名无效，请核对账本所属节点",
            Self::Entry => "条目无法识别或不属于该账本",
            Self::Body => "正文缺失、多余或与条目不符",
            Self::Act => "经办签名无效或与条目不符",
            Self::NotAccepted => "对方不接收该账本",
            Self::Unavailable => "暂时无法提供或收存，稍后重试",
            Self::TooMany => "一次会话的账本数超过上限",
        }
    }

    /// The words of a rejection: Chinese, then the detail in English.
    pub(crate) fn reason(self, detail: &str) -> String {
        tidy(&format!("{} / {detail}", self.chinese()))
    }
}

/// Words as the other side accepts them: without control characters, not too long.
pub(crate) fn tidy(words: &str) -> String {
    let mut tidy = String::new();
    for char in words.chars() {
        let char = if char.is_control() { ' ' } else { char };
        if tidy.len() + char.len_utf8() > REASON_BYTES_MAX {
            break;
        }
        tidy.push(char);
    }
    tidy
}
