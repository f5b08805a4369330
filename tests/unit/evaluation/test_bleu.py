"""BLEU in every language against sacreBLEU's own command line, run on the same files."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from sacrebleu.metrics.bleu import BLEU

from automoe.errors import InputError
from automoe.evaluation.bleu import bleu_metric, language_of
from automoe.evaluation.scores import evaluate_translations
from automoe.evaluation.significance import paired_bootstrap

# A few sentences a language, and words that a worse translation has in their place.
TEXTS = {
    "zh": ["今天天气很好，我们去公园散步。", "点击“确定”按钮以保存文件。", "他昨天买了3本新书。"],
    "ja": [
        "今日は天気がとても良いですね。",
        "「OK」をクリックしてファイルを保存します。",
        "彼は昨日新しい本を三冊買った。",
    ],
    "ko": [
        "오늘은 날씨가 매우 좋습니다.",
        "확인을 클릭하여 파일을 저장하십시오.",
        "그는 어제 새 책 세 권을 샀다.",
    ],
    "th": ["วันนี้อากาศดีมาก", "คลิกตกลงเพื่อบันทึกไฟล์", "เขาซื้อหนังสือใหม่สามเล่มเมื่อวาน"],
    "km": ["ថ្ងៃនេះអាកាសធាតុល្អណាស់", "ចុចយល់ព្រមដើម្បីរក្សាទុកឯកសារ", "គាត់បានទិញសៀវភៅថ្មីបី"],
    "lo": ["ມື້ນີ້ອາກາດດີຫຼາຍ", "ຄລິກຕົກລົງເພື່ອບັນທຶກໄຟລ໌", "ລາວຊື້ປຶ້ມໃຫມ່ສາມຫົວ"],
    "my": ["ဒီနေ့ရာသီဥတုအရမ်းကောင်းတယ်", "ဖိုင်ကိုသိမ်းရန်နှိပ်ပါ", "သူမနေ့ကစာအုပ်အသစ်ဝယ်ခဲ့တယ်"],
    "bo": ["དེ་རིང་གནམ་གཤིས་ཧ་ཅང་ཡག་པོ་འདུག", "ཡིག་ཆ་ཉར་ཚགས་བྱེད་པར་འདི་ནོན།"],
    "de": ["Das Wetter ist heute sehr schön.", "Klicken Sie auf „OK“, um die E-Mail zu speichern."],
    "fr": ["Il fait très beau aujourd’hui !", "Cliquez sur « OK » pour enregistrer le fichier."],
    "ar": ["الطقس جميل جدا اليوم، أليس كذلك؟", "انقر فوق موافق لحفظ الملف الجديد."],
    "hi": ["आज मौसम बहुत अच्छा है।", "फ़ाइल सहेजने के लिए ठीक पर क्लिक करें।"],
    "pt": ["Hoje o tempo está muito bom.", "Clique em OK para salvar o arquivo novo."],
}
WITHOUT_SPACES = ("th", "km", "lo", "my", "bo")
NEEDED = {"ja": "MeCab", "ko": "mecab_ko"}  # the package of an extra


def needs(language: str) -> None:
    if language in NEEDED:
        pytest.importorskip(NEEDED[language])


def worse(lines: list[str], share: float, seed: int) -> list[str]:
    """The lines with this share of their characters taken away."""
    draw = random.Random(seed)
    return ["".join(c for c in line if draw.random() > share) for line in lines]


def write(path: Path, lines: list[str]) -> str:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def sacrebleu(*arguments: str) -> object:
    """What sacreBLEU's command line answers, as JSON."""
    command = [sys.executable, "-m", "sacrebleu", *arguments, "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8")
    return json.loads(done.stdout)


def choice(language: str) -> list[str]:
    """How its command line is told the language; for those without spaces it offers characters."""
    return ["--tokenize", "char"] if language in WITHOUT_SPACES else ["--language-pair", f"en-{language}"]


@pytest.mark.parametrize("language", TEXTS)
def test_score_and_signature_are_those_of_the_command_line(tmp_path: Path, language: str) -> None:
    needs(language)
    references = TEXTS[language]
    hypotheses = worse(references, 0.05, seed=3)
    files = write(tmp_path / "reference", references), "-i", write(tmp_path / "hypothesis", hypotheses)
    expected = sacrebleu(*files, *choice(language), "-m", "bleu", "--width", "8")
    found = evaluate_translations(hypotheses, references, language)
    assert found.bleu == pytest.approx(expected["score"], abs=1e-7)
    assert 10 < found.bleu < 100
    version = found.bleu_signature
    assert dict(part.split(":") for part in version.split("|")) == {
        "nrefs": expected["nrefs"],
        "case": expected["case"],
        "eff": expected["eff"],
        "tok": expected["tok"],
        "smooth": expected["smooth"],
        "version": expected["version"],
    }


@pytest.mark.parametrize("language", TEXTS)
def test_a_perfect_translation_scores_100(language: str) -> None:
    needs(language)
    scores = evaluate_translations(TEXTS[language], TEXTS[language], language)
    assert (scores.bleu, scores.chrf, scores.tokenised_bleu) == pytest.approx((100, 100, 100))


@pytest.mark.parametrize("language", ["zh-CN", "ja", "ko_KR", "th", "DE"])
def test_the_paired_test_is_that_of_the_command_line(tmp_path: Path, language: str) -> None:
    plain = language_of(language)
    needs(plain)
    references = [line for line in TEXTS[plain] for _ in range(4)]
    systems = [worse(references, share, seed) for share, seed in ((0.1, 1), (0.04, 2))]
    files = [write(tmp_path / str(number), lines) for number, lines in enumerate((references, *systems))]
    paired = ["--paired-bs", "--paired-bs-n", "100", "-m", "bleu", "--width", "8"]
    baseline, system = sacrebleu(files[0], "-i", *files[1:], *choice(plain), *paired)
    found = paired_bootstrap(*systems, references, language, samples=100)
    expected = system["BLEU"]["score"] - baseline["BLEU"]["score"]
    assert found.bleu_difference == pytest.approx(expected, abs=1e-6)
    assert found.p == pytest.approx(system["BLEU"]["p_value"], abs=1e-6)
    tokenizer = evaluate_translations(references, references, language).bleu_signature.split("|")[3]
    assert tokenizer.startswith("tok:")
    assert tokenizer in found.signature.split("|")


# ISO 639-3: the members of the macrolanguage `zho`.
CHINESE = "cdo cjy cmn cnp cpx csp czh czo gan hak hnm hsn luh lzh mnp nan sjc wuu yue"


@pytest.mark.parametrize(
    ("codes", "tokenizer"),
    [
        (["zh", "zh-CN", "zh_TW", "ZH", "zh-Hans-CN", "zho_Hant", "cmn", "yue", "zh_CN.UTF-8"], "zh"),
        (CHINESE.split(), "zh"),
        (["th", "TH", "th_TH", "tha_Thai", "km", "khm_Khmr", "lo", "my-MM", "bo", "dz"], "char"),
        (["de", "DE", "de-AT", "pt-BR", "pt_BR", "no", "NO", "nb", "en_XX", "sr@latin", "vi", "mn"], "13a"),
    ],
)
def test_regions_scripts_and_case_do_not_change_the_tokenizer(codes: list[str], tokenizer: str) -> None:
    signatures = {str(bleu_metric(code).tokenizer_signature) for code in codes}
    assert signatures == {tokenizer}


@pytest.mark.parametrize("code", ["ja-JP", "JA", "jpn_Jpan"])
def test_japanese_by_any_of_its_codes(code: str) -> None:
    needs("ja")
    assert bleu_metric(code).tokenizer_signature == BLEU(trg_lang="ja").tokenizer_signature


@pytest.mark.parametrize("code", ["", "german", "中文", "z", "de DE", "-de", "d3"])
def test_what_is_no_code_is_refused(code: str) -> None:
    with pytest.raises(InputError, match="pt-BR") as caught:
        bleu_metric(code)
    assert repr(code) in str(caught.value)


@pytest.mark.parametrize(("code", "module"), [("ja-JP", "ja_mecab"), ("KO", "ko_mecab")])
def test_a_missing_tokenizer_is_named_with_its_mend(monkeypatch, code: str, module: str) -> None:
    monkeypatch.setattr(f"sacrebleu.tokenizers.tokenizer_{module}.MeCab", None)
    with pytest.raises(InputError) as caught:
        bleu_metric(code)
    assert code in str(caught.value)
    assert f"pip install 'automoe[{code[:2].lower()}]'" in str(caught.value)
