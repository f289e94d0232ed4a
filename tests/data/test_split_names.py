"""Folder names that mean a split, in several languages and spellings."""

from __future__ import annotations

import pytest

from hwnas.data.split_names import split_of


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((n, "train") for n in ("train", "Training", "TRAIN", "TrainSet", "train_images", "01-train", "train2017")),
        *((n, "train") for n in ("Entraînement", "entrenamiento", "treino", "eğitim", "обучение")),
        *((n, "train") for n in ("训练集", "訓練データ", "학습")),
        *((n, "validation") for n in ("val", "Valid", "Validation Set", "dev", "Validación", "Validierung", "検証")),
        *((n, "test") for n in ("Testing", "test-data", "testset", "Prüfung", "prueba", "тест", "テスト", "测试集")),
        *((n, None) for n in ("cat", "trainer", "testament", "contest", "train cat", "images", "set", "1", "A", "")),
    ],
)
def test_names_of_splits(name: str, split: str | None) -> None:
    assert split_of(name) == split
