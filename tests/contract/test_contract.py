"""The contract on every database: SQLite with both journals, PostgreSQL 18 and 16."""

from __future__ import annotations

from paracle_meta.testing import (
    BestPracticeContract,
    CostContract,
    CostSumContract,
    EmbeddingCacheContract,
    EmbedMissingContract,
    FeedbackContract,
    FilterContract,
    GenerationContract,
    HybridSearchContract,
    LifeContract,
    LoadingContract,
    MemoryContract,
    PromotionContract,
    ReembeddingContract,
    RetentionContract,
    SessionContract,
    SnapshotContract,
    TemplateContract,
    TextSearchContract,
    ValueContract,
    VectorContract,
    VectorSearchContract,
)


class TestGenerations(GenerationContract):
    pass


class TestValues(ValueContract):
    pass


class TestFilters(FilterContract):
    pass


class TestTemplates(TemplateContract):
    pass


class TestPromotion(PromotionContract):
    pass


class TestFeedback(FeedbackContract):
    pass


class TestCosts(CostContract):
    pass


class TestCostSums(CostSumContract):
    pass


class TestMemory(MemoryContract):
    pass


class TestBestPractices(BestPracticeContract):
    pass


class TestVectors(VectorContract):
    pass


class TestVectorSearch(VectorSearchContract):
    pass


class TestTextSearch(TextSearchContract):
    pass


class TestEmbeddingCache(EmbeddingCacheContract):
    pass


class TestEmbedMissing(EmbedMissingContract):
    pass


class TestReembedding(ReembeddingContract):
    pass


class TestHybridSearch(HybridSearchContract):
    pass


class TestSessions(SessionContract):
    pass


class TestLife(LifeContract):
    pass


class TestSnapshots(SnapshotContract):
    pass


class TestLoading(LoadingContract):
    pass


class TestRetention(RetentionContract):
    pass
