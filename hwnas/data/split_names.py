"""Names of the folders of training, validation and test images in several languages."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

SplitName = Literal["train", "validation", "test"]
WORDS: dict[SplitName, str] = {
    "train": """
        train training trainings trn tr learning fit lernen trainieren ubung entrainement apprentissage entrenamiento
        aprendizaje treino treinamento addestramento allenamento apprendimento trainen trening treningowe treningowy
        uczenie uczace trenovani trenovaci traning opplaering harjoittelu opetus egitim обучение обучающая тренировка
        тренировочная навчання тренування 训练 訓練 学習 學習 훈련 학습 تدريب
        """,
    "validation": """
        validation validate valid val vali dev devel development validierung validierungs validieren validacion
        validacao validazione convalida validatie walidacja walidacyjne walidacyjny validace validacni validering
        validointi dogrulama валидация валидационная проверка проверочная валідація 验证 驗證 検証 검증 تحقق
        """,
    "test": """
        test tests testing tst eval evaluation evaluierung holdout testen prufung essai prueba pruebas teste testes
        prova testowe testowy testovani testovaci testaus тест тестирование тестовая тестування 测试 測試 テスト 시험
        테스트 اختبار
        """,
}
FILLERS = """
    set sets data dataset datasets split splits subset image images img imgs picture pictures photo photos foto fotos
    folder files samples seg daten bilder datensatz datos imagenes dados imagens dati immagini donnees jeu de conjunto
    ensemble the of 集 セット 用 データ 数据 데이터 세트
    """


def split_of(folder_name: str) -> SplitName | None:
    """Return the split that a folder's name means, such as train for ``Training``, ``train_images`` or ``TrainSet``."""
    words = [word for word in map(_strip_fillers, _words(folder_name)) if word]
    return _MEANINGS.get(words[0]) if len(words) == 1 else None


def _words(name: str) -> list[str]:
    """Split a name at digits, signs and capitals; return lower-case words without accents."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[^\W\d_]+", _plain(spaced))


def _plain(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return unicodedata.normalize("NFKC", "".join(c for c in decomposed if not unicodedata.combining(c)))


def _strip_fillers(word: str) -> str:
    """Return an empty text for a filler, and a word without the filler that ends it (``trainset``)."""
    if word in _FILLERS:
        return ""
    if word not in _MEANINGS:
        for filler in _FILLERS:
            if word.removesuffix(filler) in _MEANINGS:
                return word.removesuffix(filler)
    return word


_MEANINGS: dict[str, SplitName] = {_plain(word): split for split, words in WORDS.items() for word in words.split()}
_FILLERS = tuple(_plain(filler) for filler in FILLERS.split())
