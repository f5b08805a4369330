"""sacreBLEU's BLEU with the tokenizer that fits the target language: the one metric of every score here."""

from __future__ import annotations

import re

from sacrebleu.metrics.bleu import BLEU

from automoe.errors import InputError

# The members of ISO 639-3's macrolanguage Chinese, and its own codes of three letters.
_CHINESE = "zho chi cdo cjy cmn cnp cpx csp czh czo gan hak hnm hsn luh lzh mnp nan sjc wuu yue"
# By the code that sacreBLEU goes by.
_SACREBLEU_CODES = {
    **dict.fromkeys(_CHINESE.split(), "zh"),
    "jpn": "ja",
    "kor": "ko",
}
# Thai, Khmer, Lao, Burmese, Shan, Mon, Northern Thai, Tai Lü, Tibetan, Dzongkha: no spaces between words, and
# no tokenizer of sacreBLEU's that needs no download but its single characters.
_WITHOUT_SPACES = re.compile("th|tha|km|khm|lo|lao|my|mya|bur|shn|mnw|nod|khb|bo|bod|tib|dz|dzo")
_CODE = re.compile(r"([A-Za-z]{2,3})([-_@.][\w@.-]*)?")
_EXTRAS = ("ja", "ko")


def language_of(code: str) -> str:
    """The language of a code, without region, script or case: `pt` of `pt-BR`, `zh` of `zh_TW` and `ZHO`.

    Raises:
        InputError: it is no such code.
    """
    match = _CODE.fullmatch(code)
    if not match:
        problem = f"expected a code such as de, pt-BR or zh_TW, by which BLEU parts words, got {code!r}"
        raise InputError("this is no code of a language", [problem])
    language = match[1].lower()
    return _SACREBLEU_CODES.get(language, language)


def bleu_metric(target_language: str) -> BLEU:
    """The BLEU that sacreBLEU's command line would compute for this language, case-sensitive.

    That is `zh` for Chinese, `ja-mecab` for Japanese, `ko-mecab` for Korean and `13a` elsewhere; but `char`
    for languages written without spaces, in which `13a` would take a sentence for a word.

    Args:
        target_language: a code such as `de` or `zh-CN`.

    Raises:
        InputError: it is no such code, or the tokenizer's packages are not installed.
    """
    language = language_of(target_language)
    try:
        return BLEU(tokenize="char" if _WITHOUT_SPACES.fullmatch(language) else None, trg_lang=language)
    except (RuntimeError, AssertionError) as error:  # MeCab or its dictionary is missing, or another one
        reason = str(error).strip().splitlines()[0].rstrip(".")
        mend = f"pip install 'automoe[{language}]'" if language in _EXTRAS else "install it again"
        problem = f"sacreBLEU's tokenizer for {target_language} cannot be used ({reason}); {mend}"
        raise InputError("translations into this language cannot be scored", [problem]) from error
