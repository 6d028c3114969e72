SELECT 1; -- comments_001
