//! Wear (密钥使用期): keys that are in use for long, and what of them is not recoverable, for the
//! doctor and the metrics. Says what to do; does nothing by itself.

use record::id::UnixMillis;

use crate::error::Result;
use crate::node::Registry;
use crate::status::{Check, Health};
use crate::table::Head;

const DAY: u64 = 86_400_000;
/// An epoch older than this is to be rotated: two years.
const EPOCH_DAYS_MAX: u64 = 2 * 365;
/// Certificates are renewed before they have less than this left.
const CERTIFICATE_DAYS_MIN: u64 = 30;

impl Registry {
    pub(crate) fn custody_checks(&self, now: UnixMillis) -> Result<Vec<Check>> {
        let mut checks = Vec::new();
        let mut check = |check, worn: bool, found: String, next: &str| {
            checks.push(Check {
                check,
                health: if worn { Health::Warning } else { Health::Ok },
                found,
                next: if worn { next.to_owned() } else { String::new() },
            });
        };
        let locked = self.is_locked();
        check(
            "locked",
            locked,
            if locked {
                "已锁定 / locked"
            } else {
                "密钥已打开 / the keys are open"
            }
            .into(),
            "请安全员执行 `fangzhi open` / let a security officer run `fangzhi open`",
        );
        let behind = self.recovery_lag()?;
        check(
            "recovery",
            behind != Some(0),
            match behind {
                None => "根密钥未分份，机器丢失则内容不可恢复 / the root is not shared: if this machine is lost, nobody opens its records".into(),
                Some(0) => "恢复资料齐全 / everything is sealed for a recovery".into(),
                Some(behind) => format!("恢复资料落后 {behind} 件 / {behind} parts are not sealed for a recovery yet"),
            },
            match behind {
                None => "分份：`fangzhi keys plan share`，见 docs/operating/keys.md / share the root: `fangzhi keys plan share`, see docs/operating/keys.md",
                Some(_) => "启动节点，稍候自动补齐；仍落后则看日志中的 recovery / let the node run, it seals them by itself; if they stay, see the log for `recovery`",
            },
        );
        let oldest = self.oldest_epoch(now)?;
        check(
            "cryptoperiod",
            oldest > EPOCH_DAYS_MAX,
            format!("最久的密钥期已 {oldest} 天 / the oldest epoch in use is {oldest} days old"),
            "换期：`fangzhi keys plan rotate-epoch 类别` / rotate it: `fangzhi keys plan rotate-epoch KIND`",
        );
        let soon = UnixMillis(now.0 + CERTIFICATE_DAYS_MIN * DAY);
        let expiring = self
            .authority()
            .certificates_ending(&self.config.division, soon);
        check(
            "certificates",
            expiring > 0,
            format!(
                "{expiring} 名操作员的证书将到期 / {expiring} operators' certificates end within {CERTIFICATE_DAYS_MIN} days"
            ),
            "在岗的换证：`fangzhi operator renew 登录名`；离岗的停用：`fangzhi operator disable 登录名` / `fangzhi operator renew LOGIN` for who stays, `fangzhi operator disable LOGIN` for who left",
        );
        Ok(checks)
    }

    pub(crate) fn custody_metrics(&self) -> Result<Vec<(&'static str, &'static str, u64)>> {
        let behind = self.recovery_lag()?;
        Ok(vec![
            (
                "fangzhi_locked",
                "Whether the node's keys are closed.",
                u64::from(self.is_locked()),
            ),
            (
                "fangzhi_root_shared",
                "Whether the root is shared among officers.",
                u64::from(behind.is_some()),
            ),
            (
                "fangzhi_recovery_behind",
                "Parts that are not sealed for a recovery yet.",
                behind.unwrap_or(0),
            ),
        ])
    }

    /// Days since the oldest present epoch of an own shard began.
    fn oldest_epoch(&self, now: UnixMillis) -> Result<u64> {
        let mut oldest = 0;
        for schema in self.catalogue().kinds() {
            let origin = self.shard(&schema.kind);
            if Head::read(self.store.as_ref(), &origin)?.size == 0 {
                continue;
            }
            let authority = self.authority();
            let epoch = authority.current_epoch(&origin);
            let plan = authority.epoch_plan(&origin, epoch);
            // The first epoch is as old as the node can be, by its charter.
            let begun = match plan.and_then(|plan| authority.plan(&plan).map(|p| p.made_at)) {
                Some(begun) => begun,
                None => authority
                    .charter(&self.config.division)
                    .map_or(now, |charter| charter.not_before),
            };
            oldest = oldest.max(now.0.saturating_sub(begun.0) / DAY);
        }
        Ok(oldest)
    }
}
