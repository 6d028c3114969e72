SELECT 1; -- capture_001
