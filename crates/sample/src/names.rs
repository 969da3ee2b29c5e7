//! Names as parents gave them: surnames by their frequency, given names by decade and sex.

use crate::draw::Draw;

/// Common surnames, the most common first.
const SURNAMES: &str = "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许邓冯韩曹\
曾彭萧蔡潘田董袁于余叶蒋杜苏魏程吕丁沈任姚卢傅钟姜崔谭廖范汪陆金石戴贾韦夏邱方侯邹\
熊孟秦白江阎薛尹段雷黎史龙陶贺顾毛郝龚邵万钱严覃武莫孔向汤";

/// Characters of given names by last year of birth, for men and for women.
const GIVEN: [(i32, &str, &str); 4] = [
    (
        1959,
        "国德福贵明华清云生荣林海文永祥金树春学世全长发义和顺安成忠仁",
        "秀英兰桂珍玉芳淑凤莲素梅琴香菊翠云霞清芝蓉碧春琼珠",
    ),
    (
        1979,
        "建军国强伟平勇刚斌辉明志华文波峰东卫兵新民林松涛",
        "丽红梅霞芳敏静艳萍燕娟玲秀英琴华莉群春玉蓉晓利琼",
    ),
    (
        1999,
        "伟磊鹏超杰涛浩宇俊凯鑫龙飞翔斌博旭阳帆亮晨坤勇洋",
        "婷娜丹雪倩颖佳慧璐莹琳洁晶媛欣悦瑶薇露珊蕾思梦雨",
    ),
    (
        i32::MAX,
        "子轩宇浩然梓博文睿俊辰泽昊天佑晨煜铭皓一航嘉逸恒",
        "子涵欣怡梓诗雨萱一诺可馨语彤思雅若溪悦瑶妍嘉婉清",
    ),
];

fn character(draw: &mut Draw, text: &str) -> String {
    let all: Vec<char> = text.chars().collect();
    draw.pick(&all).to_string()
}

/// A surname.
pub(crate) fn surname(draw: &mut Draw) -> String {
    if draw.below(1000) == 0 {
        return draw.pick(&["欧阳", "上官", "司马", "诸葛"]).to_owned();
    }
    // Frequency falls roughly with rank; the first three make up about a fifth.
    let ranked: Vec<(char, usize)> = SURNAMES
        .chars()
        .enumerate()
        .map(|(rank, c)| (c, 7200 / (rank + 8)))
        .collect();
    draw.weighted(&ranked).to_string()
}

/// A given name of one or two characters, as people born in that year have.
pub(crate) fn given(draw: &mut Draw, male: bool, year: i32) -> String {
    let (last, men, women) = GIVEN
        .into_iter()
        .find(|(last, _, _)| year <= *last)
        .unwrap_or(GIVEN[3]);
    let list = if male { men } else { women };
    let first = character(draw, list);
    let single_percent = if last == 1999 { 35 } else { 15 };
    if draw.chance(single_percent) {
        first
    } else {
        first + &character(draw, list)
    }
}
