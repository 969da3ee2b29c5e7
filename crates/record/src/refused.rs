//! What no schema may keep and no import may bring (不采集项): religion, biometrics,
//! movements, watch-lists, scores and the identifiers of people's devices.
//!
//! The words are looked for in the names of fields and columns, never in values.

/// Words of an identifier, split at what is not a letter or digit.
const WORDS: [&str; 26] = [
    "religion",
    "religious",
    "faith",
    "biometric",
    "biometrics",
    "fingerprint",
    "fingerprints",
    "face",
    "iris",
    "voiceprint",
    "dna",
    "gait",
    "track",
    "tracks",
    "trajectory",
    "whereabouts",
    "imei",
    "imsi",
    "mac",
    "wifi",
    "risk",
    "score",
    "scoring",
    "watchlist",
    "blacklist",
    "creditworthiness",
];

/// Parts of a Chinese name.
const PARTS: [&str; 30] = [
    "宗教",
    "信仰",
    "教派",
    "指纹",
    "掌纹",
    "人脸",
    "面部",
    "虹膜",
    "声纹",
    "步态",
    "生物特征",
    "生物识别",
    "基因",
    "轨迹",
    "行踪",
    "去向",
    "活动规律",
    "嗅探",
    "风险等级",
    "风险评估",
    "重点人",
    "重点人员",
    "高危",
    "列管",
    "黑名单",
    "社会信用分",
    "信用评分",
    "积分",
    "评分",
    "刑释",
];

/// Whether a field or column of this name asks for something that the register refuses.
pub fn is_refused(name: &str) -> bool {
    let lower = name.to_lowercase();
    lower
        .split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| WORDS.contains(&word))
        || PARTS.iter().any(|part| lower.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_register_refuses_is_recognized_by_its_name() {
        for name in [
            "宗教信仰",
            "religion",
            "face_image",
            "人脸照片",
            "MAC",
            "活动轨迹",
            "重点人员类别",
        ] {
            assert!(is_refused(name), "{name}");
        }
    }

    #[test]
    fn ordinary_columns_are_not_refused() {
        for name in [
            "姓名",
            "统一社会信用代码",
            "surface",
            "address",
            "备注",
            "machine",
            "facility_name",
        ] {
            assert!(!is_refused(name), "{name}");
        }
    }
}
