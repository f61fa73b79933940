-- Reserved for another slice.
SELECT 1;
