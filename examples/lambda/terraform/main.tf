# The layer, the variables, the permission and the alarm, with Terraform: copy what you need.
#   make -C .. layer.zip && terraform init && terraform apply -var doow_api_key_secret_arn=arn:aws:...

terraform {
  required_version = ">= 1.5"
  required_providers {
    archive = {
      source  = "hashicorp/archive"
      version = "~> 2.4"
    }
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.40, < 7.0"
    }
  }
}

variable "doow_api_key_secret_arn" {
  description = "ARN of the Secrets Manager secret whose value is the Doow SDK key"
  type        = string
}

variable "flush_mode" {
  description = "before_response, or after_response to deliver once the response has been sent"
  type        = string
  default     = "before_response"
}

resource "aws_lambda_layer_version" "doow_serverless" {
  layer_name               = "doow-serverless"
  filename                 = "${path.module}/../layer.zip"
  source_code_hash         = filebase64sha256("${path.module}/../layer.zip")
  license_info             = "MIT"
  compatible_architectures = ["arm64", "x86_64"]
  compatible_runtimes      = ["python3.10", "python3.11", "python3.12", "python3.13"]
  skip_destroy             = true # versions that are in use stay
}

data "archive_file" "api" {
  type        = "zip"
  source_file = "${path.module}/../api/app.py"
  output_path = "${path.module}/api.zip"
}

resource "aws_lambda_function" "api" {
  function_name    = "doow-example-api"
  filename         = data.archive_file.api.output_path
  source_code_hash = data.archive_file.api.output_base64sha256
  handler          = "app.handler"
  runtime          = "python3.12"
  architectures    = ["arm64"]
  memory_size      = 256
  timeout          = 10
  role             = aws_iam_role.api.arn
  layers           = [aws_lambda_layer_version.doow_serverless.arn]

  environment {
    variables = {
      DOOW_TRACK_API_KEY_SECRET_ARN = var.doow_api_key_secret_arn
      DOOW_TRACK_FLUSH_MODE         = var.flush_mode
      POWERTOOLS_SERVICE_NAME       = "summaries"
    }
  }

  logging_config {
    log_format = "JSON"
    log_group  = aws_cloudwatch_log_group.api.name
  }
}

resource "aws_cloudwatch_log_group" "api" {
  name              = "/doow-example/api"
  retention_in_days = 30 # usage that could not be delivered can be replayed for so long
}

resource "aws_iam_role" "api" {
  name = "doow-example-api"
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "lambda.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy" "api" {
  name = "key-and-log"
  role = aws_iam_role.api.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = "secretsmanager:GetSecretValue"
        Resource = var.doow_api_key_secret_arn
      },
      {
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = "${aws_cloudwatch_log_group.api.arn}:*"
      },
    ]
  })
}

resource "aws_cloudwatch_log_metric_filter" "undelivered" {
  name           = "undelivered-usage"
  log_group_name = aws_cloudwatch_log_group.api.name
  pattern        = "\"doow_dead_letter\" -\"usage events for a relay\""

  metric_transformation {
    namespace     = "DoowServerless"
    name          = "doow-example-undelivered"
    value         = "1"
    default_value = "0"
  }
}

resource "aws_cloudwatch_metric_alarm" "undelivered" {
  alarm_name          = "doow-example-undelivered-usage"
  alarm_description   = "Doow did not confirm usage events in time: see doow-serverless replay"
  namespace           = "DoowServerless"
  metric_name         = "doow-example-undelivered"
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  threshold           = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  treat_missing_data  = "notBreaching"
}
